#!/usr/bin/env bash
# Eight channels of 10000 to 10007, normalised by ONNX: +-1.5 as one layer, +-1107 as one group.
#
# Guess: GroupNormalization with one group is LayerNormalization over all channels, within rounding (95 %), and operators that exist to
#   normalise take the mean off before they square (90 %).
# What happens: ONNX defines both through mean(x x) - mean(x)^2, by the functions that it gives with them, in f32. Where the mean is
#   some thousand times the deviation nothing but rounding is left of that, so that the root is of epsilon alone, or of a negative number.
#   ONNX Runtime and the reference have a LayerNormalization of their own, which is right, and GroupNormalization by the function: 15 %
#   too large for 4096 to 4103, 700 times for 10000 to 10007, NaN for 100000 to 100007. LayerNormalization written out is the same.
# Version: onnxruntime 1.32.0 on the CPU, onnx 1.23.2, opset 21.
# Source: run. onnxruntime-webgpu 1.27.0 does so in LayerNormalization, InstanceNormalization and SkipLayerNormalization as well; its CPU
#   provider in SkipLayerNormalization, where 1.32.0 is right.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat >"$work/norms.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

np.seterr(all="ignore")
CHANNELS = 8


def written_out(node, shapes):
    """The function that ONNX gives with an operator, as a list of nodes."""
    schema = onnx.defs.get_schema(node.op_type, 21)
    types = [helper.make_tensor_type_proto(1, shape).SerializeToString() for shape in shapes]
    version = max(schema.context_dependent_function_opset_versions)
    function = onnx.FunctionProto.FromString(
        schema.get_context_dependent_function_with_opset_version(version, node.SerializeToString(), types))
    return list(function.node)


def model(nodes, feeds):
    inputs = [helper.make_tensor_value_info(name, 1, value.shape) for name, value in feeds.items()]
    graph = helper.make_graph(nodes, "norm", inputs, [helper.make_tensor_value_info("Y", 1, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model, feeds):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]


layer = helper.make_node("LayerNormalization", ["X", "Scale", "B"], ["Y"], axis=1, epsilon=1e-5)
group = helper.make_node("GroupNormalization", ["X", "scale", "bias"], ["Y"], num_groups=1, epsilon=1e-5)
found = {}
for first in (0, 4096, 10000, 100000):
    x = (first + np.arange(CHANNELS, dtype=np.float32)).reshape(1, CHANNELS)
    ones, zeros = np.ones(CHANNELS, np.float32), np.zeros(CHANNELS, np.float32)
    layers, groups = {"X": x, "Scale": ones, "B": zeros}, {"X": x[..., None], "scale": ones, "bias": zeros}
    out = model(written_out(layer, [x.shape, [CHANNELS], [CHANNELS]]), layers)
    results = {"exact": (x - x.mean()) / np.sqrt(x.astype(float).var() + 1e-5),
               "LayerNormalization, onnxruntime": run(model([layer], layers), layers),
               "LayerNormalization, reference": ReferenceEvaluator(model([layer], layers)).run(None, layers)[0],
               "LayerNormalization, written out": run(out, layers),
               "GroupNormalization, onnxruntime": run(model([group], groups), groups),
               "GroupNormalization, reference": ReferenceEvaluator(model([group], groups)).run(None, groups)[0]}
    print(f"{first} to {first + CHANNELS - 1}: first and last normalised")
    for name, y in results.items():
        ends = y.ravel()[[0, -1]]
        found[first, name] = ends[1]
        print(f"  {name:32} {ends[0]:11.4f} {ends[1]:11.4f}")

right = all(np.isclose(y, 1.5275, atol=1e-3) for (first, name), y in found.items()
            if first == 0 or name in ("exact", "LayerNormalization, onnxruntime", "LayerNormalization, reference"))
wrong = all(np.isnan(y) or abs(y / 1.5275 - 1) > 0.5 for (first, name), y in found.items()
            if first >= 10000 and name.startswith(("Group", "LayerNormalization, written")))
raise SystemExit(0 if right and wrong else "CHANGED: as a layer it was right, as a group and written out it was far too large or NaN")
PYTHON
"$work/python/bin/python" "$work/norms.py"
