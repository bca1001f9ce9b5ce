#!/usr/bin/env bash
# ONNX Runtime's flash attention on WebGPU: where sub-groups are 4 wide, the weights of a row add up to as little as a half.
#
# Guess: attention over values that are all 1 is 1 in every row, on every device that the provider accepts, within rounding (97 %); a
#   device it is not written for is refused or takes another kernel.
# What happens: rows with up to four keys are 1. The fifth is 0.839, the eighth 0.681, the hundredth 0.510, without an error or a word.
#   The walk over keys goes on by as many keys as a sub-group has lanes, yet every step adds eight scores. With lanes of 8 and more that is
#   the same. One query at a time is right, as decoding takes another kernel; so a prompt is read wrong and the text then goes on well.
# Version: onnxruntime-webgpu 1.27.0 (the newest on PyPI), opset com.microsoft 1, on SwiftShader of Chromium 153 (npm
#   @sparticuz/chromium 153.0.0), whose sub-groups are 4 wide. It is also what Chrome falls back to without a GPU.
# Source: run; read in onnxruntime's flash_attention.wgsl.template. Right on lavapipe 25.0.7, whose sub-groups are 8 wide.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" onnxruntime-webgpu==1.27.0 onnx==1.21.0 numpy==2.4.6
install_swiftshader "$work" 153.0.0
cat >"$work/rows.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

onnxruntime.set_default_logger_severity(3)
LENGTH, WIDTH, NAMES = 100, 64, ["query", "key", "value", "past_key", "past_value", "seqlens_k", "total_sequence_length"]


def model():
    node = helper.make_node("GroupQueryAttention", NAMES, ["out", "present_key", "present_value"], domain="com.microsoft",
                            num_heads=1, kv_num_heads=1)
    floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("out", "present_key", "present_value")]
    ranks = {"query": 3, "key": 3, "value": 3, "past_key": 4, "past_value": 4}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * ranks[n]) for n in NAMES[:5]]
    inputs += [helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, [1]),
               helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, [])]
    graph = helper.make_graph([node], "attention", inputs, floats)
    versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=10).SerializeToString()


def attend(provider, queries, past):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if provider.startswith("WebGpu"):
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(model(), options, providers=[provider])
    zeros, ones = (np.full((1, queries, WIDTH), x, np.float32) for x in (0, 1))
    feed = [zeros, zeros, ones, np.zeros((1, 1, past, WIDTH), np.float32), np.ones((1, 1, past, WIDTH), np.float32),
            np.array([queries + past - 1], np.int32), np.array(queries + past, np.int32)]
    return session.run(["out"], dict(zip(NAMES, feed)))[0][0, :, 0]


cpu, gpu = (attend(name, LENGTH, 0) for name in ("CPUExecutionProvider", "WebGpuExecutionProvider"))
token = attend("WebGpuExecutionProvider", 1, LENGTH)
print("causal attention over values of 1, rows of 1 to 8 and of 100 keys")
print("  CPU    ", np.round(cpu[[*range(8), 99]], 3))
print("  WebGPU ", np.round(gpu[[*range(8), 99]], 3))
print("  WebGPU, one query after 100 keys ", np.round(token, 3))
same = np.allclose(cpu, 1, atol=1e-5) and np.allclose(token, 1, atol=1e-5) and np.allclose(gpu[:4], 1, atol=1e-5)
short = np.allclose(gpu[[4, 7, 99]], [0.8393, 0.6808, 0.5101], atol=2e-3) and np.all(np.diff(gpu[4:]) < 0)
raise SystemExit(0 if same and short else "CHANGED: short rows right, longer ones falling to a half")
PYTHON
on_swiftshader "$work" "$work/python/bin/python" "$work/rows.py"
