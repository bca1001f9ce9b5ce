#!/usr/bin/env bash
# A cast to f16 and back to f32 does nothing on Mesa's software GPU.
#
# Guess: `f32(f16(x))` is x rounded to half precision; it is how everybody writes that (95 %). 0.1 becomes 0.099975586, 65519 becomes 65504.
# What happens: x comes back with every bit, 0.1 as 0.1, 65519 as 65519 and even 70000, which no half holds, as 70000. The numbers are
#   rounded as soon as anything stands between the two casts: a buffer, workgroup memory, a mask on the bits. `quantizeToF16` rounds.
#   A sum of weights that shall match the rounded weights that a matrix unit saw does not match.
# Version: Mesa 25.0.7 (lavapipe), through Dawn of npm webgpu 0.6.2.
# Source: run. The pair of casts is taken out by an algebraic rule of Mesa's NIR for operations that are not marked exact, and WGSL has no
#   way to mark them. NVIDIA's driver 580.159.04 does the same on an H100.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_dawn "$work" 0.6.2
install_lavapipe "$work" 25.0.7-2~bpo12+1
on_lavapipe "$work" node "$work/evaluate.mjs" <<'CASES'
f32(f16(0.1)), should be 0.099975586         ; f32(f16(a[0]))                                ; 0.1     ; 3dcccccd
f32(f16(65519)), should be 65504             ; f32(f16(a[0]))                                ; 65519   ; 477fef00
f32(f16(70000)), should be infinite          ; f32(f16(a[0]))                                ; 70000   ; 4788b800
0.1 as f16, half of a word with a mask       ; unpack2x16float(pack2x16float(vec2(a[0], a[1])) & 0xffffu).x ; 0.1, 1 ; 3dccc000
quantizeToF16(0.1)                           ; quantizeToF16(a[0])                           ; 0.1     ; 3dccc000
CASES
