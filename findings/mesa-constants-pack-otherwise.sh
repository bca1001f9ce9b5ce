#!/usr/bin/env bash
# Mesa packs a constant into other bits than the same number from a buffer.
#
# Guess: pack4x8snorm(v) is the same whether the compiler knows v or not (95 %); at most the rounding of ties differs.
# What happens: where the compiler knows v, a negative component spills its sign into all components above it. (-1, 0, 0, 0) is 00000081
#   from a buffer and ffffff81 as a constant: (-1, -1/127, -1/127, -1/127) after unpacking. One unknown component is enough to be
#   right. Tint works constant expressions out itself and so hides it; a `let`, or naga, hands the constant on to the driver.
# Version: Mesa 25.0.7 (lavapipe), through Dawn of npm webgpu 0.6.2; the same through wgpu-native 29.0.1 with a plain constant.
# Source: run, on both compilers; 16-bit snorm and the unorm packings are right.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_dawn "$work" 0.6.2
install_lavapipe "$work" 25.0.7-2~bpo12+1
on_lavapipe "$work" node "$work/evaluate.mjs" <<'CASES'
(-1, 0, 0, 0) from a buffer                  ; pack4x8snorm(vec4(a[0], a[1], a[1], a[1]))              ; -1, 0     ; 00000081
(-1, 0, 0, 0), the driver knows it           ; pack4x8snorm(vec4(-one, 0.0, 0.0, 0.0))                 ;           ; ffffff81
(-1, 0, 0, 0), the last one from a buffer    ; pack4x8snorm(vec4(-one, 0.0, 0.0, a[1]))                ; -1, 0     ; 00000081
(-1, 0, 0, 0), Tint knows it                 ; pack4x8snorm(vec4(-1.0, 0.0, 0.0, 0.0))                 ;           ; 00000081
(1, -1, 1, 1) from a buffer                  ; pack4x8snorm(vec4(a[0], a[1], a[0], a[0]))              ; 1, -1     ; 7f7f817f
(1, -1, 1, 1), the driver knows it           ; pack4x8snorm(vec4(one, -one, one, one))                 ;           ; ffff817f
pack2x16snorm((-1, 0)), the driver knows it  ; pack2x16snorm(vec2(-one, 0.0))                          ;           ; 00008001
CASES
