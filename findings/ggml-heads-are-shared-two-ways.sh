#!/usr/bin/env bash
# One call of ggml's flash attention shares heads in two ways: keys and values in runs, masks in turn.
#
# Guess: where four query heads share two KV heads and two masks, a query head that takes KV head 0 takes mask 0 (85 %), as masks belong
#   to keys.
# What happens: heads 0 to 3 take KV heads 0, 0, 1, 1 and masks 0, 1, 0, 1. A mask for each KV head, say for keys that a sparse
#   selection kept for it, thus reaches two of four heads with the other's keys; it has to be repeated for every query head. Nothing is
#   refused, as two divides four both ways.
# Version: ggml 0.25.1 (commit 0ad4a86) of llama.cpp 0.5.0, in npm @node-llama-cpp/linux-x64 3.22.1; its plain x86-64 build.
# Source: run, through ctypes; the Vulkan back end does the same.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$work" && npm pack --silent @node-llama-cpp/linux-x64@3.22.1 >/dev/null && tar -xzf ./*.tgz)
install_python "$work" numpy==2.4.6
cat >"$work/heads.py" <<'PYTHON'
import ctypes
import sys

import numpy as np

F32, F16 = 0, 1
pointer, size, integer, long, real = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int64, ctypes.c_float
base, cpu = (ctypes.CDLL(f"{sys.argv[1]}/libggml-{name}.so", ctypes.RTLD_GLOBAL) for name in ("base", "cpu-x64"))


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", size), ("mem_buffer", pointer), ("no_alloc", ctypes.c_bool)]


def function(library, name, result, *arguments):
    found = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found


init = function(base, "ggml_init", pointer, InitParams)
new_tensor = function(base, "ggml_new_tensor_4d", pointer, pointer, integer, *[long] * 4)
data = function(base, "ggml_get_data", pointer, pointer)
flash_attention = function(base, "ggml_flash_attn_ext", pointer, *[pointer] * 5, *[real] * 3)
new_graph = function(base, "ggml_new_graph", pointer, pointer)
expand = function(base, "ggml_build_forward_expand", None, pointer, pointer)
compute = function(cpu, "ggml_graph_compute_with_ctx", integer, pointer, pointer, integer)
version = function(base, "ggml_version", ctypes.c_char_p)
HEADS, KV_HEADS, KEYS, WIDTH = 4, 2, 4, 4


def attend(values, mask):
    """The first column of each head's output, for one query whose scores are all 0."""
    context = init(InitParams(16 << 20, None, False))

    def tensor(array, kind):
        array = np.ascontiguousarray(array, (np.float32, np.float16)[kind])
        made = new_tensor(context, kind, *array.shape[::-1])
        ctypes.memmove(data(made), array.ctypes.data, array.nbytes)
        return made

    q, k = tensor(np.zeros((1, HEADS, 1, WIDTH)), F32), tensor(np.zeros((1, KV_HEADS, KEYS, WIDTH)), F16)
    result = flash_attention(context, q, k, tensor(values, F16), tensor(mask, F16), 1.0, 0.0, 0.0)
    graph = new_graph(context)
    expand(graph, result)
    assert compute(context, graph, 1) == 0
    return np.frombuffer(ctypes.string_at(data(result), HEADS * WIDTH * 4), np.float32)[::WIDTH].astype(int).tolist()


print("ggml", version().decode())
values, mask = np.zeros((1, KV_HEADS, KEYS, WIDTH)), np.zeros((1, KV_HEADS, 1, KEYS))
values[0, 1] = 1
kv_heads = attend(values, mask)
values[:] = np.arange(KEYS)[:, None]
mask[0, 0, 0, 1:], mask[0, 1, 0, [0, 2, 3]] = -np.inf, -np.inf
masks = attend(values, mask)
print("query heads take KV heads", kv_heads, "and masks", masks)
raise SystemExit(0 if kv_heads == [0, 0, 1, 1] and masks == [0, 1, 0, 1] else "CHANGED: it was [0, 0, 1, 1] and [0, 1, 0, 1]")
PYTHON
"$work/python/bin/python" "$work/heads.py" "$work/package/bins/linux-x64"
