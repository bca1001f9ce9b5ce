#!/usr/bin/env python3
"""Attention in ONNX Runtime, for comparison: one GroupQueryAttention (com.microsoft) node, causal, f32.

Install:  pip install onnxruntime-webgpu onnx numpy
          (the wheel holds both providers; on a machine without a GPU only `--provider cpu` works)
Run:      python3 benches/peers/ort.py --provider cpu --threads 2 --json target/ort.json
          or benches/peers/ratio.py, which runs it and `wattn bench` on the same shapes

Shapes are cases of `wattn bench`: (heads, query rows, keys, width). The query rows are the last of the keys. Where
there are fewer query rows than keys, the keys before them come as the KV cache, past and present in one buffer, so that
the provider need not copy it. FLOP are counted as 4 * heads * (query * keys / 2) * width, half the square, whatever was
computed. A few rows are compared with f64 before anything is timed. The time is the best of `--runs`.
"""

import argparse
import json
import os
import sys
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

import ours

PROVIDERS = {"cpu": "CPUExecutionProvider", "webgpu": "WebGpuExecutionProvider"}


def model(heads, query, width, capacity):
    """One node. `capacity` is the length of the KV cache, 0 for none."""
    inputs = ["query", "key", "value", *(["past_key", "past_value"] if capacity else ["", ""]), "seqlens_k", "total"]
    node = helper.make_node(
        "GroupQueryAttention",
        inputs,
        ["out", "present_key", "present_value"],
        domain="com.microsoft",
        num_heads=heads,
        kv_num_heads=heads,
    )
    token, cache = [1, query, heads * width], [1, heads, capacity or query, width]
    f32, i32 = TensorProto.FLOAT, TensorProto.INT32
    values = [helper.make_tensor_value_info(name, f32, token) for name in ("query", "key", "value")]
    if capacity:
        values += [helper.make_tensor_value_info(name, f32, cache) for name in ("past_key", "past_value")]
    values += [helper.make_tensor_value_info("seqlens_k", i32, [1]), helper.make_tensor_value_info("total", i32, [1])]
    results = [helper.make_tensor_value_info("out", f32, token)]
    results += [helper.make_tensor_value_info(name, f32, cache) for name in ("present_key", "present_value")]
    graph = helper.make_graph([node], "attention", values, results)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def check(out, q, k, v):
    """The largest error of the first, the middle and the last row of every head. Axes are [head, seq, width]."""
    query, keys = q.shape[1], k.shape[1]
    worst = 0.0
    for row in {0, query // 2, query - 1}:
        seen = row + keys - query + 1
        scores = np.einsum("hd,hkd->hk", q[:, row].astype(np.float64), k[:, :seen]) / np.sqrt(q.shape[2])
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected = np.einsum("hk,hkd->hd", weights / weights.sum(axis=1, keepdims=True), v[:, :seen])
        worst = max(worst, np.abs(out[:, row] - expected).max())
    # Values are about 1: this catches a wrong mask or cache. The WebGPU provider is off by 2e-3 on a software adapter.
    if not worst < 1e-2:
        sys.exit(f"wrong result: off by {worst}")
    return worst


def measure(shape, provider, threads, runs):
    """Best time in seconds of one run, and the largest error."""
    heads, query, keys, width = shape
    random = np.random.default_rng(1)
    q, k, v = (random.uniform(-1, 1, (heads, n, width)).astype(np.float32) for n in (query, keys, keys))
    tokens = lambda x: np.ascontiguousarray(x[:, -query:].transpose(1, 0, 2)).reshape(1, query, heads * width)
    capacity = keys if keys > query else 0

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model(heads, query, width, capacity), options, providers=[PROVIDERS[provider]])
    if session.get_providers()[0] != PROVIDERS[provider]:
        sys.exit(f"{PROVIDERS[provider]} is not available: {session.get_providers()}")
    inputs = {"query": tokens(q), "key": tokens(k), "value": tokens(v)}
    inputs["seqlens_k"] = np.array([keys - 1], np.int32)
    inputs["total"] = np.array([keys], np.int32)

    if provider == "cpu":
        # Bound once: no copy in or out is timed, and past and present share one buffer.
        binding = session.io_binding()
        held = {name: ort.OrtValue.ortvalue_from_numpy(x) for name, x in inputs.items()}
        cache = [x[None].copy() for x in (k, v)]
        if capacity:
            for x in cache:
                x[:, :, keys - query :] = 0
        held |= {f"past_{name}": ort.OrtValue.ortvalue_from_numpy(x) for name, x in zip(("key", "value"), cache)}
        held["out"] = ort.OrtValue.ortvalue_from_numpy(np.zeros((1, query, heads * width), np.float32))
        for name in [i.name for i in session.get_inputs()]:
            binding.bind_ortvalue_input(name, held[name])
        binding.bind_ortvalue_output("out", held["out"])
        for name in ("key", "value"):
            binding.bind_ortvalue_output(f"present_{name}", held[f"past_{name}"])
        run = lambda: session.run_with_iobinding(binding)
        run()
        out = held["out"].numpy()
    else:
        # The Python API cannot hold tensors on this device: the time includes the transfers.
        if capacity:
            inputs |= {f"past_{name}": x[None] for name, x in zip(("key", "value"), (k, v))}
        run = lambda: session.run(["out"], inputs)
        out = run()[0]
    error = check(out.reshape(query, heads, width).transpose(1, 0, 2), q, k, v)

    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best, float(error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=PROVIDERS, default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the CPU provider")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", help="write the results to this file")
    arguments = parser.parse_args()

    print(f"onnxruntime {ort.__version__}, {PROVIDERS[arguments.provider]}, {arguments.threads} threads")
    print(f"{'heads':>6}{'query':>7}{'keys':>7}{'width':>7}{'ms':>10}{'GFLOP/s':>10}{'error':>10}")
    results = []
    for shape in ours.SHAPES:
        heads, query, keys, width = shape
        seconds, error = measure(shape, arguments.provider, arguments.threads, arguments.runs)
        gflops = 4 * heads * (query * keys / 2) * width / seconds / 1e9
        print(f"{heads:6}{query:7}{keys:7}{width:7}{seconds * 1e3:10.3f}{gflops:10.1f}{error:10.1e}", flush=True)
        fields = {"heads": heads, "query": query, "keys": keys, "width": width}
        results.append(fields | {"seconds": seconds, "gflops": gflops, "error": error})
    if arguments.json:
        about = {"onnxruntime": ort.__version__, "provider": arguments.provider, "threads": arguments.threads}
        with open(arguments.json, "w") as file:
            json.dump(about | {"onnx": onnx.__version__, "results": results}, file, indent=2)


if __name__ == "__main__":
    main()
