#!/usr/bin/env python3
"""Our rate over PyTorch's, in one run: on a CUDA machine `wattn bench` through Vulkan beside every back end of
scaled_dot_product_attention and FlexAttention; on a CPU our CPU path beside PyTorch's.

Install:  pip install torch numpy
Run:      python3 benches/peers/torch_ratio.py --device cuda     # f16, prompts of 8192 to 32768 tokens, and decoding
          python3 benches/peers/torch_ratio.py --device cpu      # f32, the shapes of benches/peers/ort.py

Leaves target/wattn-<device>.json and .html, and target/torch-<device>.json. Rates are of the median time on a GPU, of the shortest
on a CPU. Nothing else should run meanwhile.
"""

import argparse
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
# Device of PyTorch: how wattn is told, element type, and which of wattn's times counts.
DEVICES = {"cuda": (["--backend", "gpu"], "f16", "median"), "cpu": (["--backend", "cpu"], "f32", "min")}


def seconds_of_ours(path, dtype, pick):
    """Seconds of dense attention by (heads, query, keys, width), of as many KV heads as query heads."""
    found = {}
    for case in json.loads(path.read_text())["cases"]:
        shape = case["shape"]
        if case["dtype"] != dtype or shape["num_q_heads"] != shape["num_kv_heads"]:
            continue
        for part in case["parts"]:
            if part["part"] == "dense" and part["samples"]:
                key = tuple(shape[field] for field in ("num_q_heads", "seq_len_q", "seq_len_kv", "head_dim"))
                found[key] = part["samples"][pick]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    arguments = parser.parse_args()
    where, dtype, pick = DEVICES[arguments.device]
    ours, theirs = (ROOT / "target" / f"{name}-{arguments.device}.json" for name in ("wattn", "torch"))

    bench = ["cargo", "run", "--release", "--", "bench", "--cases", "prefill/,decode/,storage/", *where]
    subprocess.run([*bench, "--json", ours, "--html", ours.with_suffix(".html")], cwd=ROOT, check=True)
    peer = [sys.executable, HERE / "torch_attention.py", "--device", arguments.device, "--dtype", dtype]
    subprocess.run([*peer, "--json", theirs], check=True)

    seconds = seconds_of_ours(ours, dtype, pick)
    print(f"\n{'heads x query x keys x width':<30} {'PyTorch':<10} {'wattn':>10} {'PyTorch':>10} {'ratio':>8}   GFLOP/s, half the square")
    for result in json.loads(theirs.read_text())["results"]:
        shape = tuple(result[field] for field in ("heads", "query", "keys", "width"))
        name = "x".join(map(str, shape))
        if "refused" in result:
            print(f"{name:<30} {result['backend']:<10} {result['refused']}")
        elif shape not in seconds:
            print(f"{name:<30} {result['backend']:<10} not measured by wattn bench: see {ours}")
        else:
            ratio = result["seconds"] / seconds[shape]
            rate = result["gflops"]
            print(f"{name:<30} {result['backend']:<10} {rate * ratio:>10.1f} {rate:>10.1f} {ratio:>8.2f}")


if __name__ == "__main__":
    main()
