"""Writes what `training.json` of the runs holds as a picture, and compresses the held-out text for comparison.

    python card.py --runs work/first work/model --model ../model

Writes `loss.png` beside the model and prints bits per byte of zstd and xz: of each held-out document alone, and of all of
them as one text.
"""

import argparse
import json
import lzma
import pathlib
import subprocess

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    args = parser.parse_args()
    figure, axes = plt.subplots(figsize=(9, 4.5))
    tokens = 0
    for run in args.runs:
        curve = json.loads((run / "training.json").read_text())["curve"]
        for length in sorted({point["length"] for point in curve}):
            part = [point for point in curve if point["length"] == length]
            axes.plot([(tokens + point["tokens"]) / 1e6 for point in part], [point["loss"] for point in part],
                      label=f"{run.name}, {length} tokens", linewidth=1)
        tokens += curve[-1]["tokens"]
    axes.set_xlabel("million tokens")
    axes.set_ylabel("loss of a step, nats per token")
    axes.set_ylim(0, 7)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(args.model / "loss.png", dpi=100)

    texts = [json.loads(line)["text"].encode() for line in open(args.model / "heldout.jsonl")]
    whole = b"".join(texts)
    zstd = lambda data: len(subprocess.run(["zstd", "-19", "-c"], input=data, capture_output=True, check=True).stdout)
    xz = lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    for name, compress in [("zstd -19", zstd), ("xz -9e", xz)]:
        alone = sum(compress(text) for text in texts)
        print(f"{name}: {8 * alone / len(whole):.3f} bits per byte alone, {8 * compress(whole) / len(whole):.3f} as one text")


if __name__ == "__main__":
    main()
