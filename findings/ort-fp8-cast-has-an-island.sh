#!/usr/bin/env bash
# ONNX Runtime casts 470 to NaN and 490 to 448, and 62000 to NaN and 70000 to infinity, in 8-bit floats that shall not saturate.
#
# Guess: with saturate = 0 numbers up to halfway above the largest are rounded to it and all larger ones become NaN, in FLOAT8E4M3FN, and
#   infinity, in FLOAT8E5M2, as ONNX' table says (92 %); a cast is monotonic in any case (97 %).
# What happens: E4M3FN gives 448 up to 464, NaN from there to 480, 448 again from 480 to just under 496, and NaN above. E5M2 gives
#   57344 below 61440, NaN up to 65536, and infinity from there on. Negative numbers and QuantizeLinear are the same. The reference
#   of the onnx package and ml_dtypes keep to the table, and so does ONNX Runtime with saturate = 1, and in the two FNUZ types.
# Version: onnxruntime 1.32.0 on the CPU, onnx 1.23.2, ml_dtypes 0.6.0, opset 24.
# Source: run. It looks as if rounding up carried 448 and 57344 into the bits above them, and nobody looked at what those mean.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" onnxruntime==1.32.0 onnx==1.23.2 ml_dtypes==0.6.0 numpy==2.4.6
cat >"$work/cast.py" <<'PYTHON'
import ml_dtypes
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

np.seterr(all="ignore")


def cast(kind, numbers, reference=False, quantize=False):
    x, y, one = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [None]), ("y", [None]), ("s", [])))
    if quantize:
        nodes = [helper.make_node("QuantizeLinear", ["x", "s"], ["h"], output_dtype=kind, saturate=0),
                 helper.make_node("DequantizeLinear", ["h", "s"], ["y"])]
    else:
        nodes = [helper.make_node("Cast", ["x"], ["h"], to=kind, saturate=0), helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)]
    graph = helper.make_graph(nodes, "cast", [x, one] if quantize else [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    feeds = {"x": numbers} | ({"s": np.array(1, np.float32)} if quantize else {})
    if reference:
        return ReferenceEvaluator(model).run(None, feeds)[0]
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def runs(numbers, found):
    """Where the result changes, as (first number, result)."""
    starts = [i for i in range(len(found)) if i == 0 or not np.array_equal(found[i - 1], found[i], equal_nan=True)]
    return [(float(numbers[i]), float(found[i])) for i in starts]


changed = False
expected = {"FLOAT8E4M3FN": ["448 448", "464.1 nan", "480 448", "496 nan"], "FLOAT8E5M2": ["57344 57344", "61440 nan", "65536 inf"]}
for name, dtype, numbers in (("FLOAT8E4M3FN", ml_dtypes.float8_e4m3fn, np.arange(4480, 5300) / 10),
                             ("FLOAT8E5M2", ml_dtypes.float8_e5m2, np.arange(57344, 80000, 16))):
    numbers, kind = numbers.astype(np.float32), TensorProto.DataType.Value(name)
    table = numbers.astype(dtype).astype(np.float32)
    for sign in (1, -1):
        found = cast(kind, sign * numbers)
        same = np.array_equal(found, cast(kind, sign * numbers, quantize=True), equal_nan=True)
        agree = np.array_equal(cast(kind, sign * numbers, reference=True), sign * table, equal_nan=True)
        changed |= not (same and agree and [f"{a:g} {b:g}" for a, b in runs(numbers, sign * found)] == expected[name])
    print(f"{name}, from number on: result")
    for who, result in (("ml_dtypes, onnx reference", table), ("onnxruntime", cast(kind, numbers))):
        print(f"  {who:26} " + "   ".join(f"{a:g}: {b:g}" for a, b in runs(numbers, result)))
raise SystemExit("CHANGED: NaN, 448 again and NaN above 464; NaN between 61440 and 65536" if changed else 0)
PYTHON
"$work/python/bin/python" "$work/cast.py"
