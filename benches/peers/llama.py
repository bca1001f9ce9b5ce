#!/usr/bin/env python3
"""Attention in llama.cpp: ggml_flash_attn_ext of ggml's Vulkan back end, called through ctypes.

Install:  npm pack @node-llama-cpp/linux-x64-vulkan@3.22.1 and unpack it; needs numpy and a Vulkan loader
Run:      python3 benches/peers/llama.py --libraries package/bins/linux-x64-vulkan --cases 32x4096x4096x128-f16 --json target/llama.json
          On a software device with GGML_VK_VISIBLE_DEVICES=0 in the environment, without which ggml passes it over.

Cases are called as those of `wattn bench` (see shapes.py), with keys and values in f16, which is what its caches are. A graph is a chain
of nodes, each of which takes the output of the one before as its queries, so that none overlap. Time is the median of a long chain less
that of a short one, over the difference of their lengths: the cost of a submission drops out. Both run in turns after half a
second of warming up; the nodes of a decoding case take sets of keys and values in turn that no cache holds. A few rows are compared with
f64 first. The report is written anew after each case.
"""

import argparse
import ctypes as C
import json
import pathlib
import statistics
import sys
import time

import numpy as np

import shapes

F32, F16 = 0, 1  # enum ggml_type
PRECISIONS = {"default": 0, "f32": 10}  # enum ggml_prec
# More than the last cache of any GPU.
CACHED_BYTES = 256 << 20
# A mask is a matrix of queries by keys.
MOST_MASK_BYTES = 4 << 30


class InitParams(C.Structure):
    _fields_ = [("mem_size", C.c_size_t), ("mem_buffer", C.c_void_p), ("no_alloc", C.c_bool)]


P, S, I, L, F, T = C.c_void_p, C.c_size_t, C.c_int, C.c_int64, C.c_float, C.c_char_p
LOG = C.CFUNCTYPE(None, I, T, P)
BASE = {
    "ggml_log_set": (None, LOG, P),
    "ggml_init": (P, InitParams),
    "ggml_free": (None, P),
    "ggml_version": (T,),
    "ggml_commit": (T,),
    "ggml_tensor_overhead": (S,),
    "ggml_graph_overhead_custom": (S, S, C.c_bool),
    "ggml_new_tensor_2d": (P, P, I, L, L),
    "ggml_new_tensor_3d": (P, P, I, L, L, L),
    "ggml_permute": (P, P, P, I, I, I, I),
    "ggml_flash_attn_ext": (P, P, P, P, P, P, F, F, F),
    "ggml_flash_attn_ext_set_prec": (None, P, I),
    "ggml_new_graph_custom": (P, P, S, C.c_bool),
    "ggml_build_forward_expand": (None, P, P),
    "ggml_backend_alloc_ctx_tensors": (P, P, P),
    "ggml_backend_buffer_free": (None, P),
    "ggml_backend_tensor_set": (None, P, P, S, S),
    "ggml_backend_tensor_get": (None, P, P, S, S),
    "ggml_backend_graph_compute": (I, P, P),
    "ggml_backend_free": (None, P),
    "ggml_backend_get_device": (P, P),
    "ggml_backend_dev_supports_op": (C.c_bool, P, P),
}
VULKAN = {
    "ggml_backend_vk_init": (P, S),
    "ggml_backend_vk_get_device_count": (I,),
    "ggml_backend_vk_get_device_description": (None, I, T, S),
}


class Ggml:
    """The functions that are used here, by their names."""

    def __init__(self, folder):
        self.lines = []
        folder = pathlib.Path(folder)
        self._declare(C.CDLL(str(folder / "libggml-base.so"), C.RTLD_GLOBAL), BASE)
        # What the Vulkan library says of its devices comes when it is loaded.
        self._log = LOG(lambda _, text, __: self.lines.append(text.decode("utf8", "replace").rstrip()))
        self.ggml_log_set(self._log, None)
        self._declare(C.CDLL(str(folder / "libggml-vulkan.so"), C.RTLD_GLOBAL), VULKAN)

    def _declare(self, library, functions):
        for name, (result, *arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def device(self, wanted):
        """Index and name of the first device whose name has `wanted` in it."""
        names = []
        for at in range(self.ggml_backend_vk_get_device_count()):
            text = C.create_string_buffer(256)
            self.ggml_backend_vk_get_device_description(at, text, 256)
            names.append(text.value.decode())
            if wanted.lower() in names[-1].lower():
                return at, names[-1]
        sys.exit(f"ggml sees no Vulkan device with {wanted!r} in its name, but {names}")


class Chains:
    """The operator on inputs of a shape, as chains of up to `most` nodes."""

    def __init__(self, ggml, backend, shape, most):
        self.ggml, self.backend, self.shape, self.most = ggml, backend, shape, most
        self.size, self.graphs, self.buffer = 4 * most + 64, {}, None
        memory = self.size * ggml.ggml_tensor_overhead() + 8 * ggml.ggml_graph_overhead_custom(self.size, False) + 65536
        self.context = ggml.ggml_init(InitParams(memory, None, True))
        copies = min(most, max(1, -(-CACHED_BYTES // shape.bytes))) if shape.query == 1 else 1
        new = ggml.ggml_new_tensor_3d
        self.q = new(self.context, F32, shape.width, shape.query, shape.q_heads)
        self.caches = [[new(self.context, F16, shape.width, shape.keys, shape.kv_heads) for _ in "kv"] for _ in range(copies)]
        # A single row sees all keys and needs no mask.
        self.mask = ggml.ggml_new_tensor_2d(self.context, F16, shape.keys, shape.query) if shape.query > 1 else None
        self.outs, queries = [], self.q
        for at in range(most):
            k, v = self.caches[at % copies]
            out = ggml.ggml_flash_attn_ext(self.context, queries, k, v, self.mask, shape.width**-0.5, 0.0, 0.0)
            self.outs.append(out)
            queries = ggml.ggml_permute(self.context, out, 0, 2, 1, 3)
        device = ggml.ggml_backend_get_device(backend)
        if not all(ggml.ggml_backend_dev_supports_op(device, out) for out in self.outs[:2]):
            raise RuntimeError("the device does not take this operator")
        self.buffer = ggml.ggml_backend_alloc_ctx_tensors(self.context, backend)
        if not self.buffer:
            raise RuntimeError("allocation failed")
        self._fill()

    def close(self):
        if self.buffer:
            self.ggml.ggml_backend_buffer_free(self.buffer)
        self.ggml.ggml_free(self.context)

    def _put(self, tensor, array, offset=0):
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for at in range(0, raw.size, 64 << 20):
            part = raw[at : at + (64 << 20)]
            self.ggml.ggml_backend_tensor_set(tensor, part.ctypes.data, offset + at, part.size)

    def _fill(self):
        shape, random = self.shape, np.random.default_rng(1)
        # Not a multiple of any row's length, so that no two rows are alike.
        pool = random.standard_normal(4194301, np.float32)
        take = lambda by, *sizes: np.resize(np.roll(pool, by), sizes)
        self.host = {"q": 2 * take(0, shape.q_heads, shape.query, shape.width)}
        self._put(self.q, self.host["q"])
        for copy, cache in enumerate(self.caches):
            for at, tensor in enumerate(cache):
                array = take(12345 * (2 * copy + at + 1), shape.kv_heads, shape.keys, shape.width).astype(np.float16)
                self.host.setdefault("kv"[at], array)
                self._put(tensor, array)
        if self.mask:
            columns, rows = np.arange(shape.keys), max(1, (32 << 20) // (2 * shape.keys))
            for at in range(0, shape.query, rows):
                last = np.arange(at, min(shape.query, at + rows))[:, None] + shape.keys - shape.query
                hidden = np.where(columns[None, :] <= last, np.uint16(0), np.uint16(0xFC00))  # f16's -infinity
                self._put(self.mask, hidden, at * shape.keys * 2)

    def precision(self, value):
        for out in self.outs:
            self.ggml.ggml_flash_attn_ext_set_prec(out, value)

    def run(self, nodes):
        """Seconds of a chain, as the host sees them."""
        if nodes not in self.graphs:
            self.graphs[nodes] = self.ggml.ggml_new_graph_custom(self.context, self.size, False)
            self.ggml.ggml_build_forward_expand(self.graphs[nodes], self.outs[nodes - 1])
        begin = time.perf_counter()
        status = self.ggml.ggml_backend_graph_compute(self.backend, self.graphs[nodes])
        elapsed = time.perf_counter() - begin
        if status:
            raise RuntimeError(f"ggml_backend_graph_compute gave status {status}")
        return elapsed

    def check(self):
        """The largest error of the first, the middle and the last row of the first and of the last head."""
        shape, worst = self.shape, 0.0
        rows = [(head, row) for head in {0, shape.q_heads - 1} for row in {0, shape.query // 2, shape.query - 1}]
        place = lambda head, row: (row * shape.q_heads + head) * shape.width * 4
        nothing, got = np.full(shape.width, np.nan, np.float32), np.empty(shape.width, np.float32)
        for at in rows:
            self.ggml.ggml_backend_tensor_set(self.outs[0], nothing.ctypes.data, place(*at), got.nbytes)
        self.run(1)
        for head, row in rows:
            k, v = (self.host[x][head * shape.kv_heads // shape.q_heads].astype(np.float64) for x in "kv")
            seen = row + shape.keys - shape.query + 1
            scores = k[:seen] @ self.host["q"][head, row].astype(np.float64) / np.sqrt(shape.width)
            weights = np.exp(scores - scores.max())
            self.ggml.ggml_backend_tensor_get(self.outs[0], got.ctypes.data, place(head, row), got.nbytes)
            error = np.abs(got - weights @ v[:seen] / weights.sum()).max()
            worst = max(worst, float(error) if np.isfinite(error) else float("inf"))
        # Values are about 1, and f16 holds three digits of them.
        if not worst < 2e-2:
            raise RuntimeError(f"wrong result: off by {worst}")
        return worst


def measure(ggml, backend, shape, seconds, precisions):
    if shape.dtype != "f16":
        raise RuntimeError("its caches are f16")
    if 2 * shape.query * shape.keys > MOST_MASK_BYTES:
        raise RuntimeError("its mask takes more than 4 GiB")
    # What a large GPU would need says how long chains may be.
    guess = max(shape.operations / 3e14, shape.bytes / 2.5e12)
    chains = Chains(ggml, backend, shape, int(min(128, max(4, 20e-3 / guess))))
    try:
        for name in precisions:
            chains.precision(PRECISIONS[name])
            error = chains.check()
            once = min(chains.run(1) for _ in range(2))
            long = chains.most
            while long > 2 and once * long * 6 > seconds:
                long = max(2, long // 2)
            short = max(1, long // 4)
            chains.run(short)
            begin = time.perf_counter()
            while time.perf_counter() < begin + 0.5:
                chains.run(long)
            times, stop = {short: [], long: []}, time.perf_counter() + seconds
            while len(times[long]) < 5 or (time.perf_counter() < stop and len(times[long]) < 2000):
                for nodes, found in times.items():
                    found.append(chains.run(nodes))
            medians = {nodes: statistics.median(found) for nodes, found in times.items()}
            each = (medians[long] - medians[short]) / (long - short)
            if each <= 0:
                raise RuntimeError(f"{long} nodes took no longer than {short}: {medians}")
            lengths = {str(nodes): median for nodes, median in medians.items()}
            yield shape.result(name, seconds=each, error=error, chains=lengths)
    finally:
        chains.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", required=True, help="folder of libggml-base.so and libggml-vulkan.so")
    parser.add_argument("--cases", required=True)
    parser.add_argument("--adapter", default="", help="part of the adapter's name")
    parser.add_argument("--precisions", default="default", help="of default and f32, separated by commas")
    parser.add_argument("--seconds", type=float, default=2, help="for each result, its warming up left out")
    parser.add_argument("--json", help="write the results to this file")
    arguments = parser.parse_args()
    cases, precisions = shapes.parse_all(arguments.cases), arguments.precisions.split(",")
    if unknown := set(precisions) - set(PRECISIONS):
        parser.error(f"--precisions: there is no {', '.join(sorted(unknown))}")

    ggml = Ggml(arguments.libraries)
    index, name = ggml.device(arguments.adapter)
    backend = ggml.ggml_backend_vk_init(index)
    if not backend:
        sys.exit(f"ggml does not open {name}")
    version = f"{ggml.ggml_version().decode()} {ggml.ggml_commit().decode()}"
    features = [line for line in ggml.lines if "matrix cores" in line]
    report = {"peer": "llama.cpp", "ggml": version, "adapter": name, "features": features, "results": []}
    print(f"ggml {version}, {name}", *features, sep="\n", flush=True)
    for shape in cases:
        try:
            found = list(measure(ggml, backend, shape, arguments.seconds, precisions))
        except RuntimeError as refused:
            found = [shape.result("default", refused=str(refused))]
        for result in found:
            print(shapes.line(result), flush=True)
        report["results"] += found
        if arguments.json:
            pathlib.Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")
    ggml.ggml_backend_free(backend)
    return int(all("refused" in result for result in report["results"]))


if __name__ == "__main__":
    sys.exit(main())
