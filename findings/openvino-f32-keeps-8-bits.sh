#!/usr/bin/env bash
# OpenVINO, asked for f32: the prompt comes out exact, and every token after it from keys and values of 8 bits.
#
# Guess: a model in f32, compiled with INFERENCE_PRECISION_HINT f32, attends in f32, to its own state as well (88 %); what a prompt of
#   64 shows, token 65 shows too (90 %).
# What happens: once the CPU plugin has fused attention with the state that holds keys and values, the state is u8, with one scale for a
#   head's row, unless KV_CACHE_PRECISION says otherwise or EXECUTION_MODE_HINT is ACCURACY; the hint for inference does not reach it. The
#   prompt is attended to before it is stored. With ordinary numbers a later token is off by 0.6 %; with one channel of the keys
#   at 100, which no weight depends on as all keys have it, by 9 %; with one channel of the values at 1000 the others are noise. Without the
#   Gather by beam_idx nothing is fused and all is f32.
# Version: openvino 2026.4.1, opset 13, on the CPU.
# Source: run; that u8 is the default of KV_CACHE_PRECISION is documented.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" openvino==2026.4.1 numpy==2.4.6
cat >"$work/cache.py" <<'PYTHON'
import numpy as np
import openvino
import openvino.opset6 as opset6
import openvino.opset13 as opset
from openvino.op.util import Variable, VariableInfo

WIDTH, PROMPT, TOKENS = 64, 64, 4


def model(gather):
    q, k, v = (opset.parameter([1, 1, -1, WIDTH], np.float32, name=name) for name in "qkv")
    beam = opset.parameter([-1], np.int32, name="beam_idx")
    cached, stores = [], []
    for name, new in (("keys", k), ("values", v)):
        info = VariableInfo()
        info.data_shape, info.data_type, info.variable_id = openvino.PartialShape([-1, 1, -1, WIDTH]), openvino.Type.f32, name
        state = Variable(info)
        past = opset6.read_value(opset.constant(np.zeros((1, 1, 0, WIDTH), np.float32)), state)
        if gather:
            past = opset.gather(past, beam, opset.constant(np.int64(0)))
        cached.append(opset.concat([past, new], 2))
        stores.append(opset6.assign(cached[-1], state))
    y = opset.scaled_dot_product_attention(q, *cached, causal=False)
    return openvino.Model([opset.result(opset.multiply(y, opset.constant(np.float32(1))))], stores, [q, k, v] + [beam] * gather, "cache")


def off(gather, key, value, **properties):
    """Root mean square error over that of the output, channel 0 aside, of the prompt and of the tokens after it."""
    request = openvino.Core().compile_model(model(gather), "CPU", properties).create_infer_request()
    q, k, v = np.random.default_rng(0).normal(size=(3, PROMPT + TOKENS, WIDTH)).astype(np.float32)
    if key:
        k[:, 0] = key
    if value:
        v[:, 0] = value
    found = []
    for first, end in [(0, PROMPT)] + [(i, i + 1) for i in range(PROMPT, PROMPT + TOKENS)]:
        feeds = {name: array[None, None, first:end] for name, array in zip("qkv", (q, k, v))}
        y = list(request.infer(feeds | ({"beam_idx": np.zeros(1, np.int32)} if gather else {})).values())[0][0, 0]
        scores = q[first:end].astype(float) @ k[:end].T / np.sqrt(WIDTH)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        exact = weights / weights.sum(1, keepdims=True) @ v[:end]
        found.append(np.sqrt(np.mean((y - exact)[:, 1:] ** 2)) / np.sqrt(np.mean(exact[:, 1:] ** 2)))
    return found[0], float(np.mean(found[1:]))


print("openvino", openvino.__version__, "  error of the prompt, of the tokens after it")
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
changed = False
for label, low, high, arguments in (
        ("normal numbers", 0.003, 0.02, dict(gather=True, key=0, value=0, **F32)),
        ("channel 0 of all keys is 100", 0.04, 0.3, dict(gather=True, key=100, value=0, **F32)),
        ("channel 0 of all values is 1000", 0.6, 3, dict(gather=True, key=0, value=1000, **F32)),
        ("the same, KV_CACHE_PRECISION f32", 0, 1e-5, dict(gather=True, key=0, value=1000, **F32, KV_CACHE_PRECISION="f32")),
        ("the same, ACCURACY", 0, 1e-5, dict(gather=True, key=0, value=1000, EXECUTION_MODE_HINT="ACCURACY")),
        ("the same, no Gather", 0, 1e-5, dict(gather=False, key=0, value=1000, **F32))):
    prompt, tokens = off(**arguments)
    print(f"  {label:34} {prompt:9.1e} {tokens:9.1e}")
    changed |= not (prompt < 1e-4 and low <= tokens < high)
raise SystemExit("CHANGED: the prompt was exact, and later tokens off by 0.6 %, 9 % and more than all" if changed else 0)
PYTHON
"$work/python/bin/python" "$work/cache.py"
