#!/usr/bin/env bash
# ONNX Runtime on x86: a float16 tensor is shown as infinity, and the next node computes 9000 from it.
#
# Guess: a tensor that the graph declares as float16 holds numbers of half precision when the next node reads it, with optimisations
#   switched off at the latest (90 %); two outputs of one run agree with the node between them (97 %).
# What happens: most operators have no float16 kernel on the CPU, so each is put between casts to float32 and back, and a cast back that
#   meets the next node's cast is taken out. Only what leaves the graph, or reaches an operator that moves halves about, is rounded.
#   2048 + 1 leaves as 2048, and minus 2048 it is 1; scores of 90000 leave as infinity, and their tenth is 9000. The model's own cast from
#   float32 goes the same way: MatMul, asked for in float16, multiplies 70000. What overflows on a GPU has been tested here, and passed.
# Version: onnxruntime 1.32.0, onnx 1.23.2 for its reference evaluator, opset 23, x86-64; with all optimisations and with none.
# Source: run.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat >"$work/halves.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

np.seterr(all="ignore")
LEVELS = onnxruntime.GraphOptimizationLevel
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
changed = False


def check(label, nodes, feeds, outputs, expected, reference):
    global changed
    inputs = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()]
    made = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    graph = helper.make_graph([helper.make_node(*node, **attributes) for *node, attributes in nodes], "halves", inputs, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    found = {"reference": ReferenceEvaluator(model).run(None, feeds)}
    for name, level in (("optimised", LEVELS.ORT_ENABLE_ALL), ("not optimised", LEVELS.ORT_DISABLE_ALL)):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        found[name] = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, feeds)
    print(label)
    for name, values in found.items():
        values = [float(value.ravel()[0]) for value in values]
        print(f"  {name:14} " + ", ".join(f"{output} {value:g}" for output, value in zip(outputs, values)))
        changed |= values != (reference if name == "reference" else expected)


check("sum = 2048 + 1, rest = sum - 2048", [("Add", ["a", "b"], ["sum"], {}), ("Sub", ["sum", "a"], ["rest"], {})],
      {"a": np.full(1, 2048, np.float16), "b": np.full(1, 1, np.float16)}, {"sum": HALF, "rest": HALF}, [2048.0, 1.0], [2048.0, 0.0])
check("scores = q k = 300 * 300, scaled = scores * 0.1", [("MatMul", ["q", "k"], ["scores"], {}), ("Mul", ["scores", "s"], ["scaled"], {})],
      {"q": np.full((1, 1), 300, np.float16), "k": np.full((1, 1), 300, np.float16), "s": np.full(1, 0.1, np.float16)},
      {"scores": HALF, "scaled": HALF}, [np.inf, 9000.0], [np.inf, np.inf])
check("product = float32(float16(70000) * 1)",
      [("Cast", ["x"], ["half"], {"to": HALF}), ("MatMul", ["half", "w"], ["y"], {}), ("Cast", ["y"], ["product"], {"to": FLOAT})],
      {"x": np.full((1, 1), 70000, np.float32), "w": np.ones((1, 1), np.float16)}, {"product": FLOAT}, [70000.0], [np.inf])
raise SystemExit("CHANGED: it was 2048 and 1, infinity and 9000, and 70000" if changed else 0)
PYTHON
"$work/python/bin/python" "$work/halves.py"
