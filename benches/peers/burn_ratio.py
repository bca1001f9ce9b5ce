#!/usr/bin/env python3
"""Our rate over that of attention in Burn on wgpu, on one adapter, in one run.

Needs:    cargo, of a version that Burn takes; it fetches Burn and builds it into target/burn
Run:      VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json python3 benches/peers/burn_ratio.py --adapter llvmpipe
          On a machine with several GPUs, Burn's is chosen by CUBECL_WGPU_DEFAULT_DEVICE, such as DiscreteGpu(1). On the lavapipe of
          tests/matrix: CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="bash tests/matrix" before the same command.

Runs `wattn bench` and then benches/peers/burn, each case and each kernel in a process of its own: what refuses a case, gives a wrong
result, crashes, or takes longer than `--limit` is listed with the reason. Kernels are described in benches/peers/burn/src/main.rs;
`attention` is what a user of Burn gets. Rates are of the shortest time. Ours is of the device's timestamps where it has them, Burn's of
the clock, over as many calls as take 20 ms. Leaves target/wattn-<adapter>.json and .html, and target/burn-<adapter>.json. Nothing else
should run meanwhile.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys

import ours

PROJECT = ours.ROOT / "benches" / "peers" / "burn"
SHAPES = {
    "f32": ours.SHAPES,
    "f16": [(4, 1024, 1024, 128), (32, 4096, 4096, 128), (8, 1, 16384, 128)],
}
KERNELS = ("attention", "unit", "matrix", "separate")


def cargo(command, features):
    options = ["--release", "--manifest-path", PROJECT / "Cargo.toml", "--target-dir", ours.ROOT / "target" / "burn"]
    return ["cargo", command, *options, "--no-default-features", "--features", features]


def versions(features):
    """Versions of the crates that make a result what it is."""
    lines = subprocess.run(
        ["cargo", "tree", "--manifest-path", PROJECT / "Cargo.toml", "--prefix", "none", "--no-default-features", "--features", features],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return {name: re.search(rf"^{name} v(\S+)", lines, re.MULTILINE)[1] for name in ("burn", "cubecl", "cubek", "wgpu")}


def reason(code, errors):
    """What a process that failed has to say for itself, in a line."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    for line in lines:
        if killed := re.search(r"signal: \d+, (\w+)", line):
            return f"killed by {killed[1]}"
    for line, after in zip(lines, [*lines[1:], ""]):
        if line.startswith("Error: "):
            return line.removeprefix("Error: ").strip('"').replace("\\n", " ").strip()
        if "panicked at" in line:
            return after
    return lines[-1] if lines else f"exit code {code}"


def run(shape, kernel, arguments):
    """One case of one kernel: the adapter and the result, or the reason why there is none."""
    command = [*cargo("run", arguments.features), "--quiet", "--", kernel, arguments.dtype, str(arguments.runs), ours.name_of(shape)]
    # A session of its own, so that the limit ends what cargo started too.
    process = subprocess.Popen(
        command, cwd=ours.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=arguments.limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, {"failed": f"longer than {arguments.limit} s"}
    if process.returncode:
        return None, {"failed": reason(process.returncode, errors)}
    found = json.loads(output)
    return found, found["results"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="part of the adapter's name")
    parser.add_argument("--dtype", choices=SHAPES, default="f32")
    parser.add_argument("--cases", help="such as 8x1x16384x128, separated by commas: cases of `wattn bench`")
    parser.add_argument("--kernels", default=",".join(KERNELS), help="some of the default, separated by commas")
    parser.add_argument("--features", default="autotune,fusion", help="of benches/peers/burn, such as autotune,fusion,spirv")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--limit", type=float, default=300, help="seconds for one case of one kernel, its build left out")
    arguments = parser.parse_args()
    shapes = SHAPES[arguments.dtype]
    if arguments.cases:
        shapes = [tuple(map(int, case.split("x"))) for case in arguments.cases.split(",")]

    subprocess.run(cargo("build", arguments.features), cwd=ours.ROOT, check=True)
    report, peer = (ours.ROOT / "target" / f"{name}-{arguments.adapter}.json" for name in ("wattn", "burn"))
    ours.measure(shapes, ["--adapter", arguments.adapter], report)
    seconds = ours.seconds(report, arguments.dtype, "min")
    machine = json.loads(report.read_text())["machine"]

    about = {**versions(arguments.features), "features": arguments.features, "dtype": arguments.dtype, "runtime": None}
    about |= {"adapter": machine["adapter"], "driver": machine["driver"]}
    print(f"\nburn {about['burn']}, cubecl {about['cubecl']}, cubek {about['cubek']}, wgpu {about['wgpu']}; {arguments.features}")
    print(f"{machine['adapter']}, {machine['driver']}, {arguments.dtype}")
    print(f"{'heads x query x keys x width':<30} {'kernel':<10} {'wattn':>10} {'Burn':>10} {'ratio':>8} {'first, s':>9}   GFLOP/s, half the square")
    results = []
    for shape in shapes:
        for kernel in arguments.kernels.split(","):
            found, result = run(shape, kernel, arguments)
            fields = dict(zip(("heads", "query", "keys", "width"), shape)) | {"kernel": kernel}
            results.append(fields | result)
            row = f"{ours.name_of(shape):<30} {kernel:<10}"
            if found is None:
                print(f"{row} failed: {result['failed']}", flush=True)
                continue
            if found["adapter"] != machine["adapter"]:
                sys.exit(f"Burn took another adapter: {found['adapter']}; choose it with CUBECL_WGPU_DEFAULT_DEVICE")
            about["runtime"] = found["runtime"]
            rate = result["gflops"]
            # A software device has no times of ours in f16: see the report.
            ratio = result["seconds"] / seconds[shape] if shape in seconds else float("nan")
            print(f"{row} {rate * ratio:>10.2f} {rate:>10.2f} {ratio:>8.2f} {result['first']:>9.1f}", flush=True)
    peer.write_text(json.dumps(about | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
