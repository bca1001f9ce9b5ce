"""Names of attention problems, the same here and in the cases of `wattn bench`: query heads, KV heads where these differ, queries, keys,
width and storage, such as 32x4096x4096x128-f16 or 32-8x1x16384x128. Causal, one sequence, the queries at the end of the keys."""

import re
from typing import NamedTuple

BYTES = {"f32": 4, "f16": 2, "bf16": 2}
PATTERN = re.compile(r"(\d+)(?:-(\d+))?x(\d+)x(\d+)x(\d+)(?:-(f32|f16|bf16))?")


class Shape(NamedTuple):
    q_heads: int
    kv_heads: int
    query: int
    keys: int
    width: int
    dtype: str

    @property
    def name(self):
        heads = f"{self.q_heads}" if self.q_heads == self.kv_heads else f"{self.q_heads}-{self.kv_heads}"
        storage = "" if self.dtype == "f32" else f"-{self.dtype}"
        return f"{heads}x{self.query}x{self.keys}x{self.width}{storage}"

    @property
    def operations(self):
        """Half the square, whatever is computed; all keys for a single query."""
        pairs = self.keys if self.query == 1 else self.query * self.keys / 2
        return 4 * self.q_heads * pairs * self.width

    @property
    def bytes(self):
        """Of keys and values, each once."""
        return 2 * self.kv_heads * self.keys * self.width * BYTES[self.dtype]

    def result(self, backend, **fields):
        """A line of a report; rates where there are `seconds`."""
        found = {"case": self.name, "backend": backend, **fields}
        if "seconds" in fields:
            found["operations_per_second"] = self.operations / fields["seconds"]
            found["bytes_per_second"] = self.bytes / fields["seconds"]
        return found


def parse(name):
    found = PATTERN.fullmatch(name.strip())
    if not found:
        raise ValueError(f"{name}: a case is called like 32x4096x4096x128-f16 or 32-8x1x16384x128")
    heads, kv_heads, query, keys, width, dtype = found.groups()
    shape = Shape(int(heads), int(kv_heads or heads), int(query), int(keys), int(width), dtype or "f32")
    if shape.q_heads % shape.kv_heads or shape.keys < shape.query or not all(shape[:5]):
        raise ValueError(f"{name}: query heads must be a multiple of KV heads, and keys at least as many as queries")
    return shape


def parse_all(names):
    return [parse(name) for name in names.split(",") if name.strip()]


def line(result):
    """A result as people read it."""
    head = f"{result['case']:<28} {result['backend']:<16}"
    if "seconds" not in result:
        return f"{head} {result['refused']}"
    error = f"{result['error']:10.1e}" if "error" in result else ""
    tera, giga = result["operations_per_second"] / 1e12, result["bytes_per_second"] / 1e9
    return f"{head} {result['seconds'] * 1e3:11.4f} ms {tera:9.3f} TFLOP/s {giga:9.1f} GB/s of K and V {error}"
