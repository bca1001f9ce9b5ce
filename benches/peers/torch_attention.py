#!/usr/bin/env python3
"""Attention in PyTorch, for comparison: scaled_dot_product_attention with each of its back ends, and FlexAttention.

Install:  pip install torch numpy
Run:      python3 benches/peers/torch_attention.py --device cuda --json target/torch-cuda.json
          python3 benches/peers/torch_attention.py --device cpu --json target/torch-cpu.json

Cases are called as those of `wattn bench` (see shapes.py). A few rows are compared with f64 before anything is timed; a back end that
refuses a case is listed with what it says. Clocks of a GPU fall within seconds of idling and take half a second to rise, so every timing
begins with calls until their time holds. On a GPU, time is from the device's own events around as many calls as take 20 ms,
over their number: the median of such batches. Calls of a decoding case take sets of keys and values in turn that no cache holds, and are
timed once more as a CUDA graph, without the gaps between launches. On a CPU it is the best of `--runs`. The report is written anew after
each result, and a run that finds one goes on with the cases that it lacks. Ceilings are a copy, a sum and a matrix product.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

import ours
import shapes

CASES = {
    "cpu": [ours.name_of(shape) for shape in ours.SHAPES],
    "cuda": [f"32x{n}x{n}x128-f16" for n in (8192, 16384, 32768)] + [f"32x1x{n}x128-f16" for n in (4096, 16384, 65536)],
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SDPA = {
    "cpu": {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH},
    "cuda": {
        "flash": SDPBackend.FLASH_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "math": SDPBackend.MATH,
    },
}
BATCH_SECONDS = 0.02
# More than the last cache of any GPU.
CACHED_BYTES = 256 << 20


def sdpa(backend, shape):
    """A call of one back end of scaled_dot_product_attention."""
    shared = shape.q_heads != shape.kv_heads

    def call(q, k, v):
        if shape.query == shape.keys:
            return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
        # A single last row sees all keys; several need the mask aligned to the end.
        mask = None if shape.query == 1 else causal_lower_right(shape.query, shape.keys)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=shared)

    return call, lambda: sdpa_kernel(backend)


def flex(shape, device):
    """FlexAttention with the mask as a function, compiled."""
    from contextlib import nullcontext

    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    causal = lambda b, h, q, k: k <= q + (shape.keys - shape.query)
    mask = create_block_mask(causal, None, None, shape.query, shape.keys, device=device)
    compiled = torch.compile(flex_attention)
    return (lambda q, k, v: compiled(q, k, v, block_mask=mask)), nullcontext


def check(out, q, k, v):
    """The largest error of the first, the middle and the last row of the last head."""
    query, keys = q.shape[2], k.shape[2]
    worst = 0.0
    for row in {0, query // 2, query - 1}:
        seen = keys - query + row + 1
        scores = k[0, -1, :seen].double() @ q[0, -1, row].double() / q.shape[3] ** 0.5
        expected = torch.softmax(scores, 0) @ v[0, -1, :seen].double()
        worst = max(worst, (out[0, -1, row].double() - expected).abs().max().item())
    # Values are about 1, and f16 holds three digits of them.
    if not worst < 1e-2:
        raise RuntimeError(f"wrong result: off by {worst}")
    return worst


def batch_seconds(run):
    """Seconds of the device from before a function's first launch to after its last."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def steady(run, longest=2.0):
    """Runs until two times running agree within 2 %, for 0.6 s at the least: then the clocks are up."""
    begin, before = time.perf_counter(), float("inf")
    while (elapsed := time.perf_counter() - begin) < longest:
        now = batch_seconds(run)
        if elapsed > 0.6 and abs(now / before - 1) < 0.02:
            return
        before = now


def timed(calls, seconds):
    """Median and least seconds of a call on a GPU, and how many calls were one batch. `calls` take turns."""

    def batch(count):
        for at in range(count):
            calls[at % len(calls)]()

    count = 1
    while (once := batch_seconds(lambda: batch(count))) < BATCH_SECONDS and count < 4096:
        count = min(4096, max(2 * count, int(count * BATCH_SECONDS / max(once, 1e-5))))
    steady(lambda: batch(count))
    times, stop = [], time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < stop and len(times) < 500):
        times.append(batch_seconds(lambda: batch(count)) / count)
    return statistics.median(times), min(times), count


def graphed(calls, seconds, count):
    """The same of a CUDA graph of these calls."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph, count = torch.cuda.CUDAGraph(), max(len(calls), min(count, 256))
    with torch.cuda.graph(graph):
        for at in range(count):
            calls[at % len(calls)]()
    return tuple(found / count for found in timed([graph.replay], seconds)[:2])


def best(call, runs):
    """The least seconds of a call on the CPU."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def ceilings():
    """Bytes a second of a copy (read and written) and of a sum, operations a second of a matrix product."""
    found = {}
    x = torch.randn(1 << 28, device="cuda")
    y = torch.empty_like(x)
    found["copy"] = 2 * x.nbytes / timed([lambda: y.copy_(x)], 0.3)[0]
    found["read"] = x.nbytes / timed([lambda: x.sum()], 0.3)[0]
    del x, y
    for name in ("f16", "f32"):
        a = torch.randn(8192, 8192, device="cuda", dtype=DTYPES[name])
        found[f"product-{name}"] = 2 * 8192**3 / timed([lambda: a @ a], 0.3)[0]
    return found


class Report:
    """What is known so far, in a file if one is named."""

    def __init__(self, path, about):
        self.path, self.data = path and pathlib.Path(path), about | {"results": []}
        if self.path and self.path.is_file():
            before = json.loads(self.path.read_text())
            if any(before.get(field) != about[field] for field in about):
                sys.exit(f"{path} was made by {before.get('torch')} on {before.get('device')}: give another file")
            self.data = before

    def has(self, shape, backend):
        return any((r["case"], r["backend"]) == (shape.name, backend) for r in self.data["results"])

    def add(self, result):
        self.data["results"].append(result)
        print(shapes.line(result), flush=True)
        self.save()

    def save(self):
        if self.path:
            temporary = self.path.with_suffix(".new")
            temporary.write_text(json.dumps(self.data, indent=1) + "\n")
            temporary.replace(self.path)


def measure(shape, backends, report, arguments):
    device, dtype = arguments.device, DTYPES[shape.dtype]
    torch.manual_seed(1)
    new = lambda heads, n: torch.rand(1, heads, n, shape.width, device=device).mul_(2).sub_(1).to(dtype)
    decode = shape.query == 1 and device == "cuda"
    copies = max(1, -(-CACHED_BYTES // shape.bytes)) if decode else 1
    q = new(shape.q_heads, shape.query)
    caches = [(new(shape.kv_heads, shape.keys), new(shape.kv_heads, shape.keys)) for _ in range(copies)]
    for backend in backends:
        named = backend
        try:
            call, context = flex(shape, device) if backend == "flex" else sdpa(SDPA[device][backend], shape)
            with context(), torch.no_grad():
                error = check(call(q, *caches[0]), q, *caches[0])
                calls = [lambda k=k, v=v: call(q, k, v) for k, v in caches]
                if device == "cpu":
                    report.add(shape.result(named, seconds=best(calls[0], arguments.runs), error=error))
                    continue
                median, least, count = timed(calls, arguments.seconds)
                report.add(shape.result(named, seconds=median, least=least, error=error, calls=count))
                if decode:
                    named = f"{backend}, graph"
                    median, least = graphed(calls, arguments.seconds, count)
                    report.add(shape.result(named, seconds=median, least=least, error=error))
        except Exception as refused:  # whatever a back end or its compiler throws
            reason = (str(refused).strip() or repr(refused)).splitlines()[0]
            report.add(shape.result(named, refused=reason[:200]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=CASES, default="cpu")
    parser.add_argument("--cases", help="such as 32x4096x4096x128-f16,32x1x16384x128-f16")
    parser.add_argument("--backends", help="some of flash,cudnn,efficient,math; default: all that the device has")
    parser.add_argument("--flex", help="cases that FlexAttention takes too, which compiles for each; default: the prompts of the others")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads on a CPU")
    parser.add_argument("--runs", type=int, default=20, help="on a CPU")
    parser.add_argument("--seconds", type=float, default=0.5, help="on a GPU, for each result")
    parser.add_argument("--json", help="write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device")

    cases = shapes.parse_all(arguments.cases or ",".join(CASES[arguments.device]))
    flexed = [shape for shape in cases if shape.query > 1 and arguments.device == "cuda"]
    if arguments.flex is not None:
        flexed = shapes.parse_all(arguments.flex)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else f"CPU, {arguments.threads} threads"
    print(f"PyTorch {torch.__version__}, {name}", flush=True)
    report = Report(arguments.json, {"peer": "PyTorch", "torch": torch.__version__, "device": name})
    if arguments.device == "cuda" and "ceilings" not in report.data:
        report.data["ceilings"] = ceilings()
        print(" ".join(f"{key} {rate:.4g}/s" for key, rate in report.data["ceilings"].items()), flush=True)
        report.save()
    wanted = arguments.backends.split(",") if arguments.backends else list(SDPA[arguments.device])
    if unknown := set(wanted) - set(SDPA[arguments.device]):
        parser.error(f"--backends: {arguments.device} has no {', '.join(sorted(unknown))}")
    # FlexAttention last: its compiler takes the longest.
    for backends, some in ((wanted, cases), (("flex",), flexed)):
        for shape in some:
            missing = [backend for backend in backends if not report.has(shape, backend)]
            if missing:
                measure(shape, missing, report, arguments)


if __name__ == "__main__":
    main()
