#!/usr/bin/env bash
# MLX on the CPU: a quantised matrix of ones times 4096 ones in bfloat16 is 256.
#
# Guess: a product sums in f32 whatever the type of the activations, as MLX's own matmul does (90 %), and 4-bit weights with bfloat16
#   activations are off from the same weights, dequantised, by the rounding of the result, 0.2 % (85 %).
# What happens: with mode "affine", which is what quantize() uses unless told otherwise, the sum is kept in the activations' type. In
#   bfloat16 it stops at 256 and in float16 at 2048. With 4096 random weights and positive activations in bfloat16 the results are off by
#   7 %, forty times what the weights, dequantised, give. Modes "mxfp4", "mxfp8" and "nvfp4" sum in f32, and so does matmul.
# Version: mlx and mlx-cpu 0.32.4 (Linux, x86-64).
# Source: run.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" 'mlx[cpu]==0.32.4' numpy==2.4.6
cat >"$work/sums.py" <<'PYTHON'
import mlx.core as mx
import numpy as np

changed = False
print("ones (1, n) times quantised ones (n, 1)")
expected = {"affine": {"bfloat16": [256, 256, 256], "float16": [256, 1024, 2048], "float32": [256, 1024, 4096]}}
for mode, group in (("affine", 64), ("mxfp4", 32), ("mxfp8", 32)):
    for kind in ("bfloat16", "float16", "float32"):
        kind, found = getattr(mx, kind), []
        for n in (256, 1024, 4096):
            weights = mx.quantize(mx.ones((8, n), dtype=kind), group_size=group, bits=8 if mode == "mxfp8" else 4, mode=mode)
            y = mx.quantized_matmul(mx.ones((1, n), dtype=kind), *weights, group_size=group, bits=8 if mode == "mxfp8" else 4, mode=mode)
            found.append(int(y[0, 0].item()))
        name = str(kind).split(".")[-1]
        print(f"  {mode:7} {name:9} n = 256, 1024, 4096: {found}")
        changed |= found != expected.get(mode, {}).get(name, [256, 1024, 4096])
plain = [int((mx.ones((1, n), dtype=mx.bfloat16) @ mx.ones((n, 1), dtype=mx.bfloat16)).item()) for n in (256, 1024, 4096)]
print(f"  matmul  bfloat16  n = 256, 1024, 4096: {plain}")
changed |= plain != [256, 1024, 4096]

random = np.random.default_rng(0)
weights = mx.quantize(mx.array(random.normal(size=(512, 4096)), dtype=mx.bfloat16))
x = mx.array(abs(random.normal(size=(1, 4096))), dtype=mx.bfloat16)
dense = mx.dequantize(*weights)
exact = np.array(x.astype(mx.float32), np.float64) @ np.array(dense.astype(mx.float32), np.float64).T
off = {name: np.sqrt(np.mean((np.array(y.astype(mx.float32)) - exact) ** 2)) / exact.std()
       for name, y in (("quantized_matmul", mx.quantized_matmul(x, *weights)), ("matmul with the same, dequantised", x @ dense.T))}
print("normal weights in 4 bits, absolute normal activations, 4096 of them in bfloat16: off by")
for name, value in off.items():
    print(f"  {name:35} {value:.2%}")
small = off["matmul with the same, dequantised"] < 0.004 < 0.03 < off["quantized_matmul"]
raise SystemExit("CHANGED: affine sums stopped at 256 and 2048" if changed or not small else 0)
PYTHON
"$work/python/bin/python" "$work/sums.py"
