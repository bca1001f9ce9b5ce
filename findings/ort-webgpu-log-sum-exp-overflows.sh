#!/usr/bin/env bash
# ReduceLogSumExp of [100, 100] is 100.69 on ONNX Runtime's CPU provider and infinity on its WebGPU provider.
#
# Guess: an operator called log-sum-exp takes the maximum out first; that is why it is an operator of its own (92 %).
# What happens: the WebGPU provider computes log(sum(exp(x))) as it stands. In f32 a number above 88.7 makes it infinite, and numbers that
#   are all below -104 make it log of 0, on any GPU. Softmax of the same numbers is right, so the weights of a row of attention are good
#   and its log-sum-exp, by which parts are merged, is not. (What log of 0 then is, is the driver's affair: -88.03 here.)
# Version: onnxruntime-webgpu 1.27.0 (the newest on PyPI), opset 21, on SwiftShader of Chromium 153 (npm @sparticuz/chromium 153.0.0).
# Source: run; the same infinity on lavapipe 25.0.7. The CPU provider of the same wheel is right.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" onnxruntime-webgpu==1.27.0 onnx==1.21.0 numpy==2.4.6
install_swiftshader "$work" 153.0.0
cat >"$work/reduce.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

onnxruntime.set_default_logger_severity(3)


def run(operator, provider, numbers, **attributes):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], **attributes)], operator, [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if provider == "WebGpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(model, options, providers=[f"{provider}ExecutionProvider"])
    return session.run(None, {"x": np.array(numbers, np.float32)})[0]


found = {}
for numbers in ([1, 1], [89, 89], [100, 100], [-200, -200]):
    for provider in ("CPU", "WebGpu"):
        total, weights = run("ReduceLogSumExp", provider, numbers)[0], run("Softmax", provider, numbers, axis=0)
        found[provider, numbers[0]] = total
        print(f"  {str(numbers):14} {provider:7} log-sum-exp {total:10.4f}   softmax {weights}")
        assert np.allclose(weights, 0.5), "CHANGED: softmax was right"
right = all(np.isclose(found["CPU", x], x + np.log(2)) for x in (1, 89, 100, -200)) and np.isclose(found["WebGpu", 1], 1 + np.log(2))
wrong = all(np.isposinf(found["WebGpu", x]) for x in (89, 100)) and found["WebGpu", -200] > -100
raise SystemExit(0 if right and wrong else "CHANGED: it was infinite for 89 and 100, and far off for -200")
PYTHON
on_swiftshader "$work" "$work/python/bin/python" "$work/reduce.py"
