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
import torch_attention

# Device of PyTorch: how wattn is told, element type, and which of wattn's times counts.
DEVICES = {"cuda": (["--backend", "gpu"], "f16", "median"), "cpu": (["--backend", "cpu"], "f32", "min")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    device = parser.parse_args().device
    where, dtype, pick = DEVICES[device]
    report, peer = (ours.ROOT / "target" / f"{name}-{device}.json" for name in ("wattn", "torch"))
    ours.measure(torch_attention.SHAPES[device], where, report)
    command = [sys.executable, torch_attention.__file__, "--device", device, "--dtype", dtype]
    subprocess.run([*command, "--json", peer], check=True)

    seconds = ours.seconds(report, dtype, pick)
    print(f"\n{'heads x query x keys x width':<30} {'PyTorch':<10} {'wattn':>10} {'PyTorch':>10} {'ratio':>8}   GFLOP/s, half the square")
    for result in json.loads(peer.read_text())["results"]:
        shape = tuple(result[field] for field in ("heads", "query", "keys", "width"))
        name = ours.name_of(shape)
        if "refused" in result:
            print(f"{name:<30} {result['backend']:<10} {result['refused']}")
        elif shape not in seconds:
            print(f"{name:<30} {result['backend']:<10} not measured by wattn bench: see {report}")
        else:
            ratio, rate = result["seconds"] / seconds[shape], result["gflops"]
            print(f"{name:<30} {result['backend']:<10} {rate * ratio:>10.1f} {rate:>10.1f} {ratio:>8.2f}")


if __name__ == "__main__":
    main()
