#!/usr/bin/env python3
"""Our rate over ONNX Runtime's, on the CPU and on lavapipe, in one run.

Install:  pip install onnxruntime-webgpu onnx numpy
Run:      VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json WATTN_TEST_ADAPTER=llvmpipe \\
              python3 benches/peers/ratio.py

Runs `cargo bench` (prefill and decode), then benches/peers/ort.py for each provider, then compares the best time of
each. Nothing else should run meanwhile.
"""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent


def ours(device, case):
    """Best seconds of one benchmark, from criterion's samples."""
    for group in ("prefill", "decode"):
        path = ROOT / "target/criterion" / group / f"{device}_{case}" / "new/sample.json"
        if path.exists():
            sample = json.loads(path.read_text())
            return min(time / runs for time, runs in zip(sample["times"], sample["iters"])) / 1e9
    sys.exit(f"no benchmark {device}/{case} in target/criterion")


def main():
    subprocess.run(["cargo", "bench", "--bench", "prefill", "--bench", "decode"], cwd=ROOT, check=True)
    rows = []
    for provider, device in (("cpu", "cpu"), ("webgpu", os.environ.get("WATTN_TEST_ADAPTER", "llvmpipe"))):
        path = ROOT / "target" / f"ort-{provider}.json"
        command = [sys.executable, HERE / "ort.py", "--provider", provider, "--threads", "2", "--json", path]
        subprocess.run(command, check=True)
        for case in json.loads(path.read_text())["results"]:
            name = "x".join(str(case[key]) for key in ("heads", "query", "keys", "width"))
            rows.append((device, name, ours(device, name), case["seconds"], case["gflops"]))
    print(f"\n{'device':<10} {'case':<20} {'wattn':>10} {'ORT':>10} {'ratio':>8}   GFLOP/s, half the square")
    for device, name, our_seconds, ort_seconds, ort_rate in rows:
        ratio = ort_seconds / our_seconds
        print(f"{device:<10} {name:<20} {ort_rate * ratio:>10.2f} {ort_rate:>10.2f} {ratio:>8.2f}")


if __name__ == "__main__":
    main()
