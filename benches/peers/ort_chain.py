#!/usr/bin/env python3
"""Attention in ONNX Runtime's WebGPU provider, without the transfers that its Python interface cannot leave out: a chain of
GroupQueryAttention nodes (com.microsoft), each of which takes the output of the one before as its queries, against one such node.

Install:  pip install onnxruntime-webgpu onnx numpy
Run:      python3 benches/peers/ort_chain.py --cases 32x4096x4096x128-f16 --write target/onnx      # the models, needs onnx
          python3 benches/peers/ort_chain.py --cases 32x4096x4096x128-f16 --models target/onnx --json target/ort.json

Cases are called as those of `wattn bench` (see shapes.py). Time is the median of the long chain less that of the short one, over
the difference of their lengths, both run in turns after half a second of warming up. A decoding case copies its cache in each node. A few
rows of the short chain are compared with f64 first. The report is written anew after each case.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import numpy as np

import shapes

PROVIDERS = {"webgpu": "WebGpuExecutionProvider", "cpu": "CPUExecutionProvider"}
TYPES = {"f32": np.float32, "f16": np.float16}


def lengths(shape):
    """Nodes of the short and of the long chain: enough for the difference to stand out."""
    return (1, 33) if shape.query == 1 else (1, 9)


def file_of(folder, shape, nodes):
    return pathlib.Path(folder) / f"{shape.name}-{nodes}.onnx"


def write(folder, shape):
    from onnx import TensorProto, helper

    dtype = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16}[shape.dtype]
    cache = [1, shape.kv_heads, shape.keys, shape.width] if shape.keys > shape.query else None
    tokens = lambda heads: [1, shape.query, heads * shape.width]
    value = helper.make_tensor_value_info
    inputs = [value("query", dtype, tokens(shape.q_heads))]
    inputs += [value(name, dtype, tokens(shape.kv_heads)) for name in ("key", "value")]
    if cache:
        inputs += [value(name, dtype, cache) for name in ("past_key", "past_value")]
    inputs += [value(name, TensorProto.INT32, [1]) for name in ("seqlens_k", "total")]
    past = ["past_key", "past_value"] if cache else ["", ""]
    for nodes in lengths(shape):
        chain = [
            helper.make_node(
                "GroupQueryAttention",
                ["query" if at == 0 else f"out{at - 1}", "key", "value", *past, "seqlens_k", "total"],
                [f"out{at}", f"present_key{at}", f"present_value{at}"],
                domain="com.microsoft",
                num_heads=shape.q_heads,
                kv_num_heads=shape.kv_heads,
            )
            for at in range(nodes)
        ]
        graph = helper.make_graph(chain, "attention", inputs, [value(f"out{nodes - 1}", dtype, tokens(shape.q_heads))])
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        file_of(folder, shape, nodes).write_bytes(model.SerializeToString())


def inputs_of(shape):
    random = np.random.default_rng(1)
    new = lambda *sizes: random.uniform(-1, 1, sizes).astype(TYPES[shape.dtype])
    found = {"query": new(1, shape.query, shape.q_heads * shape.width)}
    found |= {name: new(1, shape.query, shape.kv_heads * shape.width) for name in ("key", "value")}
    if shape.keys > shape.query:
        found |= {name: new(1, shape.kv_heads, shape.keys, shape.width) for name in ("past_key", "past_value")}
    found["seqlens_k"] = np.array([shape.keys - 1], np.int32)
    found["total"] = np.array([shape.keys], np.int32)
    return found


def check(shape, out, inputs):
    """The largest error of the first, the middle and the last row of every head."""
    heads = lambda x, count: x.reshape(shape.query, count, shape.width).transpose(1, 0, 2)
    q, out = (heads(x, shape.q_heads) for x in (inputs["query"], out))
    keys = []
    for name in ("key", "value"):
        new = heads(inputs[name], shape.kv_heads)
        past = inputs.get(f"past_{name}")
        whole = new if past is None else np.concatenate([past[0, :, : shape.keys - shape.query], new], axis=1)
        keys.append(np.repeat(whole, shape.q_heads // shape.kv_heads, axis=0))
    worst = 0.0
    for row in {0, shape.query // 2, shape.query - 1}:
        seen = row + shape.keys - shape.query + 1
        for head in range(shape.q_heads):
            scores = keys[0][head, :seen].astype(np.float64) @ q[head, row].astype(np.float64) / np.sqrt(shape.width)
            weights = np.exp(scores - scores.max())
            expected = weights @ keys[1][head, :seen].astype(np.float64) / weights.sum()
            worst = max(worst, float(np.abs(out[head, row] - expected).max()))
    # Values are about 1: this catches a wrong mask or cache, beyond f16's own error and the 2e-3 of a software adapter.
    if not worst < 1e-2:
        raise RuntimeError(f"wrong result: off by {worst}")
    return worst


def measure(shape, arguments):
    import onnxruntime as ort

    provider = PROVIDERS[arguments.provider]
    inputs, runs = inputs_of(shape), {}
    error = None
    for nodes in lengths(shape):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(str(file_of(arguments.models, shape, nodes)), options, providers=[provider])
        if session.get_providers()[0] != provider:
            raise RuntimeError(f"{provider} is not available: {session.get_providers()}")
        taken = {value.name: inputs[value.name] for value in session.get_inputs()}
        runs[nodes] = lambda session=session, taken=taken, nodes=nodes: session.run([f"out{nodes - 1}"], taken)[0]
        out = runs[nodes]()
        if nodes == 1:
            error = check(shape, out, inputs)
    short, long = lengths(shape)
    times, begin = {short: [], long: []}, time.perf_counter()
    while time.perf_counter() < begin + 0.5:
        runs[long]()
    stop = time.perf_counter() + arguments.seconds
    while len(times[long]) < 5 or (time.perf_counter() < stop and len(times[long]) < 200):
        for nodes, run in runs.items():
            start = time.perf_counter()
            run()
            times[nodes].append(time.perf_counter() - start)
    medians = {nodes: statistics.median(found) for nodes, found in times.items()}
    seconds = (medians[long] - medians[short]) / (long - short)
    if seconds <= 0:
        raise RuntimeError(f"{long} nodes took no longer than {short}: {medians}")
    chains = {str(nodes): median for nodes, median in medians.items()}
    return shape.result(arguments.provider, seconds=seconds, error=error, chains=chains)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--provider", choices=PROVIDERS, default="webgpu")
    parser.add_argument("--write", help="write the models into this folder, and measure nothing")
    parser.add_argument("--models", help="the folder with the models")
    parser.add_argument("--seconds", type=float, default=2, help="for each case, its warming up left out")
    parser.add_argument("--json", help="write the results to this file")
    arguments = parser.parse_args()
    if bool(arguments.write) == bool(arguments.models):
        parser.error("one of --write and --models")
    cases = shapes.parse_all(arguments.cases)
    if arguments.write:
        pathlib.Path(arguments.write).mkdir(parents=True, exist_ok=True)
        for shape in cases:
            write(arguments.write, shape)
        return 0

    import onnxruntime

    print(f"onnxruntime {onnxruntime.__version__}, {PROVIDERS[arguments.provider]}", flush=True)
    report = {"peer": "ONNX Runtime", "onnxruntime": onnxruntime.__version__, "provider": arguments.provider, "results": []}
    for shape in cases:
        try:
            result = measure(shape, arguments)
        except Exception as refused:  # of ONNX Runtime's own kinds, which share no base
            result = shape.result(arguments.provider, refused=str(refused).strip().splitlines()[0][:200])
        print(shapes.line(result), flush=True)
        report["results"].append(result)
        if arguments.json:
            pathlib.Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")
    return int(all("refused" in result for result in report["results"]))


if __name__ == "__main__":
    sys.exit(main())
