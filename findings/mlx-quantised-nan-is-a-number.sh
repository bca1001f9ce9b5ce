#!/usr/bin/env bash
# MLX: a NaN that is quantised comes back as a number, as 1, 0, 896 or 448 according to the format, and may take its block along.
#
# Guess: a NaN in the weights or in a cache that is quantised makes its block, or itself, NaN again on the way back (85 %); the 8-bit
#   formats have codes for it (95 %).
# What happens: "affine" gives the NaN back as the largest of its block, here 1. "mxfp4" gives 0 for all 32 numbers of the block and "nvfp4"
#   for all 16; "mxfp8" gives 896 for all 32, though E4M3 and the scale's E8M0 both have a NaN. to_fp8 makes it 448, and from_fp8 would
#   have read 7f as NaN. A model or a cache that has gone wrong looks sound, or wrong by a plain number, once it is quantised. An infinity
#   does the same, but for "affine", where its block is NaN, as one would think.
# Version: mlx and mlx-cpu 0.32.4 (Linux, x86-64).
# Source: run.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" 'mlx[cpu]==0.32.4' numpy==2.4.6
cat >"$work/nan.py" <<'PYTHON'
import mlx.core as mx
import numpy as np

modes = {"affine": (32, 4), "mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}
expected = {("affine", "nan"): [1, 1, 0.5], ("mxfp4", "nan"): [0, 0, 0], ("mxfp8", "nan"): [896, 896, 896], ("nvfp4", "nan"): [0, 0, 0],
            ("affine", "inf"): [np.nan] * 3, ("mxfp4", "inf"): [0, 0, 0], ("mxfp8", "inf"): [896, 896, 896], ("nvfp4", "inf"): [0, 0, 0]}
changed = False
for text in ("nan", "inf"):
    print(f"{text}, 1, 0.5, 0.5, ... quantised and back: the first three, and how many of the block are 0.5 still")
    for mode, (size, bits) in modes.items():
        block = np.full((1, 32), 0.5, np.float32)
        block[0, :2] = float(text), 1
        quantised = mx.quantize(mx.array(block), group_size=size, bits=bits, mode=mode)
        back = np.array(mx.dequantize(*quantised, group_size=size, bits=bits, mode=mode).astype(mx.float32))[0, :size]
        kept = int(np.sum(np.isclose(back, 0.5, rtol=0.05)))
        print(f"  {mode:7} {back[:3].tolist()}  {kept} of {size - 2}")
        changed |= not np.array_equal(back[:3], expected[mode, text], equal_nan=True)
        changed |= kept != (size - 2 if (mode, text) == ("affine", "nan") else 0)

codes = mx.to_fp8(mx.array([np.nan, np.inf, 1], dtype=mx.float32))
back, code = mx.from_fp8(codes, dtype=mx.float32).tolist(), mx.from_fp8(mx.array([0x7F], dtype=mx.uint8), dtype=mx.float32).item()
print(f"to_fp8 of nan, inf, 1: {[f'{x:02x}' for x in codes.tolist()]}, and back: {back}; from_fp8 of 7f: {code}")
changed |= back != [448, 448, 1] or not np.isnan(code)
raise SystemExit("CHANGED: a NaN came back as 1, 0, 896, 0 and 448" if changed else 0)
PYTHON
"$work/python/bin/python" "$work/nan.py"
