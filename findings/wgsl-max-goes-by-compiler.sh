#!/usr/bin/env bash
# max(1, NaN) on one and the same driver: 1 by Chrome's compiler, NaN by naga, and with the arguments exchanged 1 by both.
#
# Guess: what max does with a NaN is the device's choice, so one driver gives one answer, whoever compiled (80 %); and as IEEE's maxNum
#   knows no order of arguments, neither does max (65 %).
# What happens: through naga the second argument comes out wherever one is a NaN, through Tint the number does. Natively,
#   `m = max(m, score)` over scores with a NaN keeps the NaN only if it comes last; `m = max(score, m)` forgets it at once. A test on
#   Chrome's WebGPU proves nothing for a native program, even on the same driver. min is the same.
# Version: npm webgpu 0.6.2 (Dawn, Tint) and PyPI wgpu 0.32.0 (wgpu-native 29.0.1.1, naga), both on SwiftShader of Chromium 153 (npm
#   @sparticuz/chromium 153.0.0).
# Source: run; read: naga writes SPIR-V's FMax, which leaves a NaN open, as WGSL does. lavapipe 26.2.6 gives
#   NaN for max(1, NaN) through naga as well, lavapipe 25.0.7 never.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_dawn "$work" 0.6.2
install_python "$work" wgpu==0.32.0 numpy==2.4.6
install_swiftshader "$work" 153.0.0

# cases ONE-AND-NAN NAN-AND-ONE RUNNING: what max and min gave.
cases() {
    cat <<CASES
max(1, NaN)                                  ; max(a[0], a[1])                     ; 1, nan       ; $1
max(NaN, 1)                                  ; max(a[0], a[1])                     ; nan, 1       ; $2
min(1, NaN)                                  ; min(a[0], a[1])                     ; 1, nan       ; $1
min(NaN, 1)                                  ; min(a[0], a[1])                     ; nan, 1       ; $2
running maximum of 1, NaN                    ; max(max(-3e38, a[0]), a[1])         ; 1, nan       ; $1
running maximum of NaN, 1                    ; max(max(-3e38, a[0]), a[1])         ; nan, 1       ; $3
CASES
}
cases 3f800000 3f800000 3f800000 | on_swiftshader "$work" node "$work/evaluate.mjs"
cases 7fc00000 3f800000 3f800000 | on_swiftshader "$work" env WGPU_BACKEND_TYPE=Vulkan "$work/python/bin/python" "$common/evaluate.py"
