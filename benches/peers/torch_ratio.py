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
import subprocess
import sys

import ours
import shapes
import torch_attention

# Device of PyTorch: how wattn is told, and which of wattn's times counts.
DEVICES = {"cuda": (["--backend", "gpu"], "median"), "cpu": (["--backend", "cpu"], "min")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    device = parser.parse_args().device
    where, pick = DEVICES[device]
    report, peer = (ours.ROOT / "target" / f"{name}-{device}.json" for name in ("wattn", "torch"))
    cases = [shapes.parse(name) for name in torch_attention.CASES[device]]
    ours.measure([(c.q_heads, c.query, c.keys, c.width) for c in cases], where, report)
    peer.unlink(missing_ok=True)
    subprocess.run([sys.executable, torch_attention.__file__, "--device", device, "--json", peer], check=True)

    print(f"\n{'case':<28} {'PyTorch':<16} {'wattn':>10} {'PyTorch':>10} {'ratio':>8}   GFLOP/s, half the square")
    for result in json.loads(peer.read_text())["results"]:
        shape = shapes.parse(result["case"])
        head = f"{shape.name:<28} {result['backend']:<16}"
        seconds = ours.seconds(report, shape.dtype, pick)
        key = (shape.q_heads, shape.query, shape.keys, shape.width)
        if "refused" in result:
            print(f"{head} {result['refused']}")
        elif key not in seconds:
            print(f"{head} not measured by wattn bench: see {report}")
        else:
            ratio, rate = result["seconds"] / seconds[key], result["operations_per_second"] / 1e9
            print(f"{head} {rate * ratio:>10.1f} {rate:>10.1f} {ratio:>8.2f}")


if __name__ == "__main__":
    main()
