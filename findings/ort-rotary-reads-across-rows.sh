#!/usr/bin/env bash
# ONNX Runtime's RotaryEmbedding with a table as wide as its text allows turns position 2 by the angles of position 1, and 1 not at all.
#
# Guess: where only the first 4 of a head's 8 numbers turn, a table of cosines with head_size / 2 = 4 columns, which the operator's text
#   offers beside rotary_embedding_dim / 2 = 2, has its first 2 columns used, or is refused (92 %); and scale, "used if specified",
#   does something (75 %).
# What happens: the wide table is taken and then walked as if it were narrow: position p gets the numbers from 2 p on, whatever row they
#   are in. Position 1 thus gets the last columns of position 0's row, which turn nothing, and position 2 the angles of position 1. Position
#   0 is right, and so is a head that turns whole. scale is not looked at. ONNX' own RotaryEmbedding, in the same library, refuses the
#   wide table, saying that the width "should be same as head_size / 2", which it is.
# Version: onnxruntime 1.32.0, com.microsoft RotaryEmbedding 1 on the CPU; onnx 1.23.2.
# Source: run.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat >"$work/rotary.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

onnxruntime.set_default_logger_severity(4)
ROWS, HEAD, TURNS = 6, 8, 4
x = np.zeros((1, ROWS, HEAD), np.float32)
x[..., :2] = 1
positions = np.arange(ROWS)[None]


def turned(columns, domain="com.microsoft", **attributes):
    """What each position's first two numbers, both 1, are multiplied with, where row and column of the cosine are its two digits."""
    cos = (10 * np.arange(ROWS)[:, None] + np.arange(columns)).astype(np.float32)
    feeds = {"x": x, "positions": positions, "cos": cos, "sin": cos * 0}
    names = list(feeds) if domain else ["x", "cos", "sin", "positions"]
    node = helper.make_node("RotaryEmbedding", names, ["y"], domain=domain, num_heads=1, rotary_embedding_dim=TURNS, **attributes)
    inputs = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()]
    graph = helper.make_graph([node], "rotary", inputs, [helper.make_tensor_value_info("y", 1, None)])
    versions = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=10).SerializeToString()
    y = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    return y[0, :, :2].astype(int).tolist()


schema = next(s for s in state.get_all_operator_schema() if (s.domain, s.name) == ("com.microsoft", "RotaryEmbedding"))
text = {i.name: i.description for i in schema.inputs}["cos_cache"]
print("cos_cache:", text)
assert "head_size / 2) or (max_sequence_length, rotary_embedding_dim / 2" in text, "CHANGED: the text offers both widths"

right = [[10 * row, 10 * row + 1] for row in range(ROWS)]
across = [[10 * (place // 4) + place % 4 for place in (2 * row, 2 * row + 1)] for row in range(ROWS)]
narrow, wide, scaled = turned(TURNS // 2), turned(HEAD // 2), turned(TURNS // 2, scale=2.0)
print("cosines, as row and column, that positions 0 to 5 get")
print("  2 columns           ", narrow)
print("  2 columns, scale 2  ", scaled)
print("  4 columns           ", wide)
try:
    turned(HEAD // 2, domain="")
    raise SystemExit("CHANGED: ONNX' operator took the wide table")
except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
    print("  4 columns, ONNX' own operator:", str(error).split("Status Message: ")[-1])
raise SystemExit(0 if narrow == scaled == right and wide == across else "CHANGED: it read across the rows of the wide table alone")
PYTHON
"$work/python/bin/python" "$work/rotary.py"
