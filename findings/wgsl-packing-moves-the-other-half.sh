#!/usr/bin/env bash
# On Chrome's software GPU an infinity in one half of pack2x16float changes the number in the other half.
#
# Guess: the two halves of pack2x16float have nothing to do with each other (95 %), and a number too large for a half becomes infinity,
#   7c00 (85 %).
# What happens: infinity becomes 7fff, a NaN, and the 1 beside it in the high half comes out as 3c02, 1.00195, if the infinity is in the
#   low half. 70000 becomes 7c46, which is a NaN as well; 65520 is right. A pair in half precision with one overflow thus holds two wrong
#   numbers, neither of which is infinite.
# Version: SwiftShader of Chromium 153 (npm @sparticuz/chromium 153.0.0), through Dawn of npm webgpu 0.6.2.
# Source: run; it looks as if rounding were added to the bits before anybody asks for the exponent. The same bits come through
#   wgpu-native 29.0.1, and lavapipe 25.0.7 gives 7c00 and 3c00.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_dawn "$work" 0.6.2
install_swiftshader "$work" 153.0.0
on_swiftshader "$work" node "$work/evaluate.mjs" <<'CASES'
pack2x16float(1, 1)                          ; pack2x16float(vec2(a[0], a[1]))                         ; 1, 1      ; 3c003c00
pack2x16float(inf, 1), low half is 7c00      ; pack2x16float(vec2(a[0], a[1]))                         ; inf, 1    ; 3c027fff
the 1 of that pair                           ; unpack2x16float(pack2x16float(vec2(a[0], a[1]))).y      ; inf, 1    ; 3f804000
the infinity of that pair                    ; unpack2x16float(pack2x16float(vec2(a[0], a[1]))).x      ; inf, 1    ; 7fffe000
pack2x16float(1, inf)                        ; pack2x16float(vec2(a[0], a[1]))                         ; 1, inf    ; 7fff3c00
pack2x16float(70000, 1), low half is 7c00    ; pack2x16float(vec2(a[0], a[1]))                         ; 70000, 1  ; 3c007c46
pack2x16float(65520, 1), low half is 7c00    ; pack2x16float(vec2(a[0], a[1]))                         ; 65520, 1  ; 3c007c00
CASES
