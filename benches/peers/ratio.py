#!/usr/bin/env python3
"""Our rate over ONNX Runtime's, on the CPU and on one adapter, in one run.

Install:  pip install onnxruntime-webgpu onnx numpy
Run:      VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json python3 benches/peers/ratio.py --adapter llvmpipe

Runs `wattn bench` and then benches/peers/ort.py, for the CPU and for the adapter, and compares the shortest time of each. Leaves
target/wattn-<device>.json and .html, and target/ort-<provider>.json. Nothing else should run meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys

import ours
import ort


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default="llvmpipe", help="part of the adapter's name")
    arguments = parser.parse_args()
    rows = []
    for provider, device, where in (
        ("cpu", "cpu", ["--backend", "cpu"]),
        ("webgpu", arguments.adapter, ["--adapter", arguments.adapter]),
    ):
        report, peer = (ours.ROOT / "target" / name for name in (f"wattn-{device}.json", f"ort-{provider}.json"))
        ours.measure(ours.SHAPES, where, report)
        command = [sys.executable, ort.__file__, "--provider", provider, "--threads", str(os.cpu_count())]
        subprocess.run([*command, "--json", peer], check=True)
        seconds = ours.seconds(report, "f32", "min")
        for case in json.loads(peer.read_text())["results"]:
            shape = tuple(case[key] for key in ("heads", "query", "keys", "width"))
            if shape not in seconds:
                sys.exit(f"{ours.name_of(shape)} was not measured: see {report}")
            rows.append((device, ours.name_of(shape), case["seconds"] / seconds[shape], case["gflops"]))
    print(f"\n{'device':<10} {'case':<20} {'wattn':>10} {'ORT':>10} {'ratio':>8}   GFLOP/s, half the square")
    for device, name, ratio, rate in rows:
        print(f"{device:<10} {name:<20} {rate * ratio:>10.2f} {rate:>10.2f} {ratio:>8.2f}")


if __name__ == "__main__":
    main()
