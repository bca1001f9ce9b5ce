#!/usr/bin/env bash
# ggml: weights in Q4_1 and Q5_1 times activations of 2048 is infinite or NaN; 2047 is right, and so is Q4_0.
#
# Guess: a product of quantised weights with f32 activations is off by what quantising costs, about 1 %, whatever the size of the
#   activations, as each block of 32 has a scale (88 %); Q4_1, the larger and finer sister of Q4_0, works wherever Q4_0 does (95 %).
# What happens: activations are made 8 bits wide for the product, and for the formats that have a minimum the sum of each block is kept
#   beside them, in half precision. A sum of 65520 or more is infinite: 32 activations of 2048, or a single one of 65520 amid zeros. The
#   product then is the infinity of the minimum's sign, and NaN where the minimum of the weights is 0. Q4_0, Q5_0 and Q8_0 keep no
#   sum, and the K formats keep theirs in integers.
# Version: ggml 0.25.1 (commit 0ad4a86) of llama.cpp 0.5.0, in npm @node-llama-cpp/linux-x64 3.22.1; its plain x86-64 build.
# Source: run, through ctypes; the builds for Haswell and Zen 4 do the same. llama.cpp's pull request 21652, open, tells of a model whose
#   perplexity is NaN with feed-forward weights in Q4_1.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$work" && npm pack --silent @node-llama-cpp/linux-x64@3.22.1 >/dev/null && tar -xzf ./*.tgz)
install_python "$work" numpy==2.4.6
cat >"$work/product.py" <<'PYTHON'
import ctypes
import sys

import numpy as np

pointer, size, integer, long = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int64
base, cpu = (ctypes.CDLL(f"{sys.argv[1]}/libggml-{name}.so", ctypes.RTLD_GLOBAL) for name in ("base", "cpu-x64"))


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", size), ("mem_buffer", pointer), ("no_alloc", ctypes.c_bool)]


def function(library, name, result, *arguments):
    found = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found


init = function(base, "ggml_init", pointer, InitParams)
new_tensor = function(base, "ggml_new_tensor_1d", pointer, pointer, integer, long)
data = function(base, "ggml_get_data", pointer, pointer)
quantize = function(base, "ggml_quantize_chunk", size, integer, pointer, pointer, long, long, long, pointer)
mul_mat = function(base, "ggml_mul_mat", pointer, *[pointer] * 3)
new_graph = function(base, "ggml_new_graph", pointer, pointer)
expand = function(base, "ggml_build_forward_expand", None, pointer, pointer)
compute = function(cpu, "ggml_graph_compute_with_ctx", integer, pointer, pointer, integer)
version = function(base, "ggml_version", ctypes.c_char_p)
F32, KINDS, WIDTH = 0, {"Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12}, 256


def product(kind, weights, activations):
    context = init(InitParams(16 << 20, None, False))
    w, x = new_tensor(context, KINDS[kind], WIDTH), new_tensor(context, F32, WIDTH)
    quantize(KINDS[kind], weights.ctypes.data, data(w), 0, 1, WIDTH, None)
    ctypes.memmove(data(x), activations.ctypes.data, activations.nbytes)
    result, graph = mul_mat(context, w, x), new_graph(context)
    expand(graph, result)
    assert compute(context, graph, 1) == 0
    return ctypes.cast(data(result), ctypes.POINTER(ctypes.c_float))[0]


def row(*pattern):
    return np.resize(np.array(pattern, np.float32), WIDTH)


one = row(0)
one[0] = 65520
cases = [("0.25 and 0.5, times 2047", row(0.25, 0.5), row(2047), None), ("0.25 and 0.5, times 2048", row(0.25, 0.5), row(2048), np.inf),
         ("-0.5 and 0.5, times 2048", row(-0.5, 0.5), row(2048), -np.inf), ("0 and 0.5, times 2048", row(0, 0.5), row(2048), np.nan),
         ("0.5 and 0.25, times one 65520", row(0.5, 0.25), one, np.inf)]
print("ggml", version().decode())
print(f"  {'':30} {'exact':>10} " + " ".join(f"{kind:>10}" for kind in KINDS))
changed = False
for label, weights, activations, broken in cases:
    exact = float(weights.astype(float) @ activations)
    found = {kind: product(kind, weights, activations) for kind in KINDS}
    print(f"  {label:30} {exact:10.0f} " + " ".join(f"{x:10.0f}" for x in found.values()))
    for kind, x in found.items():
        if broken is not None and kind in ("Q4_1", "Q5_1"):
            changed |= not np.array_equal(x, broken, equal_nan=True)
        else:
            changed |= not abs(x - exact) < 0.15 * np.abs(weights).astype(float) @ activations
raise SystemExit("CHANGED: Q4_1 and Q5_1 were right up to 2047 and infinite or NaN from 2048 on, the others right" if changed else 0)
PYTHON
"$work/python/bin/python" "$work/product.py" "$work/package/bins/linux-x64"
