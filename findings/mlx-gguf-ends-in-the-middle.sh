#!/usr/bin/env bash
# MLX reads a GGUF file up to the first tensor of a type it has not heard of, and returns what it has, without a word.
#
# Guess: mx.load of a file with one tensor that it cannot read raises an error that names it (85 %), as it does for Q5_0, or leaves out that
#   one; and a BF16 tensor comes as bfloat16, which MLX has (90 %).
# What happens: types that its reader knows by name and cannot convert raise an error. MXFP4, NVFP4, TQ1_0, TQ2_0 and Q1_0, which are newer,
#   end the file: of three tensors the first is returned, of a file that begins with one an empty dictionary. gguf's own reader shows
#   all three. BF16 comes as float16: 70144 is infinite and 1e-8 is 0.
# Version: mlx and mlx-cpu 0.32.4, gguf 0.19.0 as the writer.
# Source: run.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" 'mlx[cpu]==0.32.4' gguf==0.19.0 numpy==2.4.6
cat >"$work/read.py" <<'PYTHON'
import sys

import gguf
import mlx.core as mx
import numpy as np

file = sys.argv[1] + "/model.gguf"


def write(*tensors):
    """Tensors as (name, numbers, type)."""
    writer = gguf.GGUFWriter(file, "llama")
    for name, numbers, kind in tensors:
        numbers = np.asarray(numbers, np.float32)
        if kind == "F32":
            writer.add_tensor(name, numbers)
        else:
            kind = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return [tensor.name for tensor in gguf.GGUFReader(file).tensors]


def load():
    try:
        return sorted(name for name in mx.load(file) if "." not in name)
    except RuntimeError as error:
        return f"error: {error}"


ones, every = np.ones((4, 256)), ["first", "last", "middle"]
expected = dict.fromkeys(("F32", "F16", "Q8_0", "Q4_0", "Q4_1"), every) | dict.fromkeys(("MXFP4", "TQ1_0", "TQ2_0"), ["first"])
changed = False
print("what MLX loads of a file with tensors first, middle and last, all F32 but for the middle one")
for kind in ("F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4", "TQ1_0", "TQ2_0"):
    there = write(("first", ones, "F32"), ("middle", ones, kind), ("last", ones, "F32"))
    found = load()
    print(f"  {kind:6} {found}")
    changed |= sorted(there) != every or (found != expected[kind] if kind in expected else not found.startswith("error"))
there = write(("first", ones, "MXFP4"), ("middle", ones, "F32"), ("last", ones, "F32"))
found = load()
print(f"  MXFP4 as the first: {found}")
changed |= sorted(there) != every or found != []

write(("x", [[1, 70144, 1e-8]], "BF16"))
x = mx.load(file)["x"]
print(f"1, 70144 and 1e-8 in BF16: {x.tolist()} as {x.dtype}")
changed |= x.dtype != mx.float16 or x.tolist() != [[1, np.inf, 0]]
raise SystemExit("CHANGED: it stopped in silence at MXFP4, TQ1_0 and TQ2_0, and read BF16 as float16" if changed else 0)
PYTHON
"$work/python/bin/python" "$work/read.py" "$work"
