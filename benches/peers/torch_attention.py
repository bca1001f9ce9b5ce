#!/usr/bin/env python3
"""Attention in PyTorch, for comparison: scaled_dot_product_attention with each of its back ends, and FlexAttention.

Install:  pip install torch numpy
Run:      python3 benches/peers/torch_attention.py --device cuda --dtype f16 --json target/torch-cuda.json
          python3 benches/peers/torch_attention.py --device cpu --dtype f32 --json target/torch-cpu.json

Shapes are (heads, query rows, keys, width), causal, the query rows the last of the keys, one sequence: on a CPU those of
benches/peers/ort.py, on a GPU prompts of 8192 to 32768 tokens and decoding, heads 128 wide. FLOP are counted as
4 * heads * (query * keys / 2) * width, half the square, whatever was computed. A few rows are compared with f64 before anything is
timed; a back end that refuses a shape is listed with what it says. On a GPU the time is that of the device's own events, the
median of `--runs`; on a CPU the best.
"""

import argparse
import json
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

import ours

SHAPES = {
    "cpu": ours.SHAPES,
    "cuda": [(32, n, n, 128) for n in (8192, 16384, 32768)] + [(32, 1, n, 128) for n in (4096, 16384, 65536)],
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
BACKENDS = {
    "cpu": {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH},
    "cuda": {
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    },
}


def sdpa(backend, query, keys):
    """A call of one back end of scaled_dot_product_attention."""

    def call(q, k, v):
        with sdpa_kernel(backend):
            if query == keys:
                return scaled_dot_product_attention(q, k, v, is_causal=True)
            # A single last row sees all keys; several need the mask aligned to the end.
            mask = None if query == 1 else causal_lower_right(query, keys)
            return scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return call


def flex(query, keys, device):
    """FlexAttention with the mask as a function, compiled."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    causal = lambda b, h, q, k: k <= q + (keys - query)
    mask = create_block_mask(causal, None, None, query, keys, device=device)
    compiled = torch.compile(flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask)


def check(out, q, k, v):
    """The largest error of the first, the middle and the last row of the first head."""
    query, keys = q.shape[2], k.shape[2]
    worst = 0.0
    for row in {0, query // 2, query - 1}:
        seen = keys - query + row + 1
        scores = k[0, 0, :seen].double() @ q[0, 0, row].double() / q.shape[3] ** 0.5
        expected = torch.softmax(scores, 0) @ v[0, 0, :seen].double()
        worst = max(worst, (out[0, 0, row].double() - expected).abs().max().item())
    # Values are about 1, and f16 holds three digits of them.
    if not worst < 1e-2:
        sys.exit(f"wrong result: off by {worst}")
    return worst


def seconds_of(call, inputs, device, runs):
    if device == "cpu":
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            call(*inputs)
            times.append(time.perf_counter() - start)
        return min(times)
    times = []
    for _ in range(runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call(*inputs)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SHAPES, default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads on a CPU")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", help="write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device")

    name = torch.cuda.get_device_name() if arguments.device == "cuda" else f"CPU, {arguments.threads} threads"
    print(f"PyTorch {torch.__version__}, {name}, {arguments.dtype}")
    print(f"{'backend':<10}{'heads':>6}{'query':>7}{'keys':>7}{'width':>7}{'ms':>10}{'GFLOP/s':>11}{'error':>10}")
    results = []
    for shape in SHAPES[arguments.device]:
        heads, query, keys, width = shape
        torch.manual_seed(1)
        new = lambda n: (2 * torch.rand(1, heads, n, width) - 1).to(arguments.device, DTYPES[arguments.dtype])
        q, k, v = new(query), new(keys), new(keys)
        backends = BACKENDS[arguments.device].items()
        calls = {name: (lambda backend=backend: sdpa(backend, query, keys)) for name, backend in backends}
        if arguments.device == "cuda":
            calls["flex"] = lambda: flex(query, keys, arguments.device)
        for backend, make in calls.items():
            fields = dict(zip(("heads", "query", "keys", "width"), shape)) | {"backend": backend}
            try:
                call = make()
                error = check(call(q, k, v), q, k, v)
                seconds = seconds_of(call, (q, k, v), arguments.device, arguments.runs)
            except (RuntimeError, NotImplementedError) as refused:
                reason = str(refused).strip().splitlines()[0]
                print(f"{backend:<10}{heads:6}{query:7}{keys:7}{width:7}  {reason}", flush=True)
                results.append(fields | {"refused": reason})
                continue
            gflops = 4 * heads * (query * keys / 2) * width / seconds / 1e9
            print(f"{backend:<10}{heads:6}{query:7}{keys:7}{width:7}{seconds * 1e3:10.3f}{gflops:11.1f}{error:10.1e}", flush=True)
            results.append(fields | {"seconds": seconds, "gflops": gflops, "error": error})
    if arguments.json:
        about = {"torch": torch.__version__, "device": name, "dtype": arguments.dtype}
        with open(arguments.json, "w") as file:
            json.dump(about | {"results": results}, file, indent=2)


if __name__ == "__main__":
    main()
