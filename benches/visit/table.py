#!/usr/bin/env python3
"""Writes what GPUs reached into src/docs/performance.md, between the marks `hardware` there.

Run:      python3 benches/visit/table.py                       # from the files of benches/hardware
          python3 benches/visit/table.py out/results.jsonl     # and first a file there from the results of a visit
          python3 benches/visit/table.py --check               # writes nothing, fails if the section is another

A file of benches/hardware holds a card, a driver and a commit. A value that is not to be trusted carries the reason (`doubt`), which the
table prints: of a visit, samples that spread or lie beyond their best by more than 15 %, and clocks that moved by as much.
"""

import argparse
import json
import pathlib
import re
import string
import sys
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "peers"))
import shapes

HARDWARE = ROOT / "benches" / "hardware"
PAGE = ROOT / "src" / "docs" / "performance.md"
BEGIN, END = "<!-- hardware: written by benches/visit/table.py -->", "<!-- hardware: end -->"
MOST_NOISE = 0.15
PEERS = [
    "wattn",
    "tuned",
    "PyTorch flash",
    "PyTorch cuDNN",
    "PyTorch flex",
    "PyTorch efficient",
    "llama.cpp Vulkan",
    "ONNX Runtime WebGPU",
]
BACKENDS = {"flash": "PyTorch flash", "cudnn": "PyTorch cuDNN", "flex": "PyTorch flex", "efficient": "PyTorch efficient"}
CEILINGS = {  # of wattn, of PyTorch, what that is, and its unit
    "matrix": ("product-f16", "matrix units, f16 into f32, TFLOP/s", 1e12),
    "f32": ("product-f32", "f32, TFLOP/s", 1e12),
    "f16": (None, "f16 vectors, TFLOP/s", 1e12),
    "copy": ("copy", "copy, GB/s read and written", 1e9),
}


def rounded(rate):
    """The rate in three digits."""
    return float(f"{rate:.3g}")


def rate_of(shape, seconds):
    """TFLOP/s of a prompt, GB/s of keys and values where one row is decoded."""
    return rounded(shape.bytes / seconds / 1e9 if shape.query == 1 else shape.operations / seconds / 1e12)


def noise(samples):
    """The larger of two: the spread of half of the samples, and the distance of the median from the best."""
    return max(samples["spread"], 1 - samples["min"] / samples["median"])


def doubted(value, samples, case):
    clocks = case.get("clocks") or {"before": 1, "after": 1}
    moved = clocks["after"] / clocks["before"] - 1
    found = {"value": value}
    if abs(moved) > MOST_NOISE:
        found["doubt"] = f"clocks moved by {moved:+.0%} meanwhile"
    elif noise(samples) > MOST_NOISE:
        found["doubt"] = f"samples differ by {noise(samples):.0%}"
    return found


class Visit:
    """The last report of each step in results.jsonl, condensed."""

    def __init__(self, path):
        self.reports, self.status, self.about = {}, {}, {}
        for line in path.read_text().splitlines():
            found = json.loads(line)
            for field in ("kit", "machine", "adapter", "began"):
                if field in found:
                    self.about.setdefault(field, found[field])
            if "step" in found:
                self.status[found["step"]] = (found["status"], found.get("reason"))
                if "report" in found:
                    self.reports[found["step"]] = found["report"]

    def of(self, prefix):
        return [report for name, report in self.reports.items() if name == prefix or name.startswith(f"{prefix}/")]

    def parts(self, step):
        """Case and part by name, of those that were timed."""
        for report in self.of(step):
            for case in report["cases"]:
                yield case, {part["part"]: part for part in case["parts"] if part["samples"]}

    def dense(self):
        rates = {}

        def add(case, who, rate):
            before = rates.setdefault(case, {}).get(who)
            if before is None or rate["value"] > before["value"]:
                rates[case][who] = rate

        for who, step in (("wattn", "dense"), ("tuned", "tuned")):
            for case, parts in self.parts(step):
                if "dense" in parts and case["method"] is None:
                    # A device that is too small for a case takes narrower heads, which its name says.
                    name, samples = case["name"].removesuffix("-f32"), parts["dense"]["samples"]
                    add(name, who, doubted(rate_of(shapes.parse(name), samples["median"]), samples, case))
        named = [(report, lambda backend: BACKENDS.get(backend.removesuffix(", graph"))) for report in self.of("torch")]
        named += [(report, lambda _: "llama.cpp Vulkan") for report in self.of("llama")]
        named += [(report, lambda _: "ONNX Runtime WebGPU") for report in self.of("ort")]
        for report, who in named:
            for result in report["results"]:
                if "seconds" in result and who(result["backend"]):
                    shape = shapes.parse(result["case"])
                    add(shape.name, who(result["backend"]), {"value": rate_of(shape, result["seconds"])})
        order = sorted(rates, key=lambda name: (shapes.parse(name).query == 1, shapes.parse(name).dtype, shapes.parse(name).keys))
        return [{"case": name, "rates": rates[name]} for name in order]

    def sparse(self):
        rows = {}
        for case, parts in (found for step in ("sparse", "dense") for found in self.parts(step)):
            if "dense" not in parts or "sparse" not in parts:
                continue
            row, dense = rows.setdefault(case["id"], {"case": case["id"]}), parts["dense"]["samples"]
            for part, field in (("sparse", "every_step"), ("step", "cycle")):
                if part in parts:
                    samples = parts[part]["samples"]
                    worst = max(dense, samples, key=noise)
                    row[field] = doubted(rounded(dense["median"] / samples["median"]), worst, case)
                    row[f"{field}_microseconds"] = doubted(rounded(samples["median"] * 1e6), samples, case)
        return list(rows.values())

    def ceilings(self):
        ours = {ceiling["kind"]: ceiling["rate"] for report in self.of("dense") for ceiling in report["ceilings"] if ceiling["rate"]}
        theirs = {name: rate for report in self.of("torch") for name, rate in report.get("ceilings", {}).items()}
        rows = []
        for kind, (name, what, unit) in CEILINGS.items():
            row = {"what": what}
            row |= {"wattn": {"value": rounded(ours[kind] / unit)}} if kind in ours else {}
            row |= {"PyTorch": {"value": rounded(theirs[name] / unit)}} if name in theirs else {}
            rows += [row] if len(row) > 1 else []
        return rows

    def tests(self):
        found = self.of("tests")
        text = f"{sum(report['passed'] for report in found)} GPU tests passed, {sum(len(report['failed']) for report in found)} failed"
        unfinished = [name for name, (status, _) in self.status.items() if name.startswith("tests/") and status not in ("done", "failed")]
        return text + (f", and {', '.join(unfinished)} did not end" if unfinished else "")

    def condensed(self):
        adapter, kit = self.about["adapter"], self.about["kit"]
        note = "".join(
            f" {name} {'was left out' if status == 'left out' else 'did not end' if status != 'failed' else 'failed'}: {reason}."
            for name, (status, reason) in self.status.items()
            if status != "done" and not name.startswith("tests/")
        ).strip()
        return {
            "adapter": adapter["name"],
            "driver": adapter["driver"],
            "commit": kit["commit"] + (" with changes" if kit["dirty"] else ""),
            "measured": self.about["began"][:10],
            "note": note,
            "tests": self.tests(),
            "dense": self.dense(),
            "sparse": self.sparse(),
            "ceilings": self.ceilings(),
        }


class Doubts:
    """Reasons, each with a letter."""

    def __init__(self):
        self.reasons = []

    def cell(self, value):
        if value is None:
            return ""
        text = f"{value['value']:g}"
        if "doubt" not in value:
            return text
        if value["doubt"] not in self.reasons:
            self.reasons.append(value["doubt"])
        return f"{text} ({string.ascii_lowercase[self.reasons.index(value['doubt'])]})"

    def legend(self):
        return [f"- ({string.ascii_lowercase[at]}) {reason}" for at, reason in enumerate(self.reasons)]


def table(head, rows):
    if not rows:
        return []
    # Columns of which no row has anything are left out.
    kept = [at for at in range(len(head)) if at == 0 or any(row[at] for row in rows)]
    lines = [[head[at] for at in kept], ["---" if at == 0 else "---:" for at in kept], *[[row[at] for at in kept] for row in rows]]
    return ["|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" for cells in lines] + [""]


def card(data):
    doubts = Doubts()
    text = [f"### {data['adapter']}, driver {data['driver']}, {data['commit']}", ""]
    for paragraph in (data["note"], f"Tests: {data['tests']}."):
        text += [*textwrap.wrap(paragraph, 138), ""] if paragraph else []
    prompts = [row for row in data["dense"] if shapes.parse(row["case"]).query > 1]
    decodes = [row for row in data["dense"] if shapes.parse(row["case"]).query == 1]
    for unit, rows in (("TFLOP/s", prompts), ("decoding, GB/s of K and V", decodes)):
        cells = [[row["case"], *[doubts.cell(row["rates"].get(who)) for who in PEERS]] for row in rows]
        text += table([unit, *PEERS], cells)
    fields = ("every_step", "cycle", "every_step_microseconds", "cycle_microseconds")
    cells = [[row["case"], *[doubts.cell(row.get(field)) for field in fields]] for row in data["sparse"]]
    text += table(["times our dense attention", "every step", "cycle", "every step, us", "cycle, us"], cells)
    cells = [[row["what"], doubts.cell(row.get("wattn")), doubts.cell(row.get("PyTorch"))] for row in data["ceilings"]]
    text += table(["ceilings", "from WGSL", "PyTorch"], cells)
    if doubts.reasons:
        text += ["Not to be trusted:", "", *doubts.legend(), ""]
    return text


def section():
    found = [json.loads(path.read_text()) for path in sorted(HARDWARE.glob("*.json"))]
    found.sort(key=lambda data: (data["measured"], data["commit"]), reverse=True)
    return "\n".join([BEGIN, "", *[line for data in found for line in card(data)], END])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=pathlib.Path, help="results.jsonl of a visit")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE, help="instead of src/docs/performance.md")
    arguments = parser.parse_args()
    for path in arguments.results:
        data = Visit(path).condensed()
        name = re.sub(r"[^a-z0-9]+", "-", f"{data['adapter']} {data['commit']}".lower()).strip("-")
        (HARDWARE / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
        print(HARDWARE / f"{name}.json")
    page = arguments.page.read_text()
    begin, end = page.find(BEGIN), page.find(END)
    if begin < 0 or end < begin:
        sys.exit(f"error: {arguments.page} lacks the line {BEGIN} or, after it, {END}")
    new = page[:begin] + section() + page[end + len(END) :]
    if arguments.check:
        sys.exit(None if new == page else f"error: {arguments.page} is not what benches/hardware says; run {pathlib.Path(__file__).name}")
    arguments.page.write_text(new)


if __name__ == "__main__":
    main()
