"""Times of `wattn bench`, for the comparisons beside this file."""

import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).parent.parent.parent
# Heads, queries, keys and width of the f32 cases that peers run beside us.
SHAPES = [(8, 1024, 1024, 64), (4, 2048, 2048, 128), (2, 4096, 4096, 128), (8, 1, 16384, 128)]
FIELDS = ("num_q_heads", "seq_len_q", "seq_len_kv", "head_dim")


def name_of(shape):
    """As the cases are called: heads x queries x keys x width."""
    return "x".join(map(str, shape))


def measure(shapes, where, path):
    """Runs the cases of these (heads, query, keys, width) and leaves the report in `path`, and a page beside it."""
    cases = ",".join(name_of(shape) for shape in shapes)
    command = ["cargo", "run", "--release", "--", "bench", "--cases", cases, *where]
    subprocess.run([*command, "--json", path, "--html", path.with_suffix(".html")], cwd=ROOT, check=True)


def seconds(path, dtype, pick):
    """Seconds of dense attention by shape, of as many KV heads as query heads. `pick`: median or min."""
    found = {}
    for case in json.loads(path.read_text())["cases"]:
        shape = case["shape"]
        if case["dtype"] != dtype or shape["num_q_heads"] != shape["num_kv_heads"]:
            continue
        for part in case["parts"]:
            if part["part"] == "dense" and part["samples"]:
                found[tuple(shape[field] for field in FIELDS)] = part["samples"][pick]
    return found
