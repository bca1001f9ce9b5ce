#!/usr/bin/env python3
"""Measures one GPU on a bare machine, within a number of seconds: see `bash benches/measure --pack`.

  run NAME --seconds N            the adapter whose name has NAME in it, such as NVIDIA; results go into this folder
  run NAME --seconds N            once more in the same folder: goes on where the first ended
  run NAME --seconds N --again    does everything anew
  run NAME --seconds N --quick    few and small cases, which a software device does too
  run NAME --seconds N --only tests,dense,torch      only steps whose names begin so: for a visit of minutes

Needs python3 and a driver. Leaves results.jsonl, which is all that a later run or benches/visit/table.py needs: a line for each step
that ended, with its report, and one for each report that grew meanwhile; and log, with what the steps said. A step has a limit of its
own, and a killed run loses no more than the step under way. What the machine lacks is left out by name.

Exit code: 0 when every step is done or left out, 1 when one failed, 3 when time ran out before the last.
"""

import argparse
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

import machine as machines
import steps as lists

HERE = pathlib.Path(__file__).resolve().parent
C_LIBRARY = ctypes.CDLL(None)
# A step is not begun with fewer seconds left.
LEAST_SECONDS = 5
# Seconds that a step is given to end when it is told to.
PATIENCE = 2
# What ended for good. Anything else is tried again by the next run.
ENDED = ("done", "failed")


class Refused(Exception):
    """The change that the user must make, in a sentence."""


class Results:
    """The lines of results.jsonl, and what they say of each step."""

    def __init__(self, path, again):
        self.path, self.steps, self.kit, self.adapter = path, {}, None, None
        if again:
            path.unlink(missing_ok=True)
        if path.exists():
            # A killed run may have left half a line.
            text = path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text:
                path.write_bytes(whole)
            for line in whole.decode().splitlines():
                self._take(json.loads(line))
        self.file = path.open("a")

    def _take(self, line):
        if "kit" in line:
            self.kit = line["kit"]
        if "adapter" in line:
            self.adapter = line["adapter"]
        if "step" in line:
            before = self.steps.get(line["step"], {})
            # A run that fails to go on leaves the report of the one before.
            kept = {"report": before["report"]} if "report" in before else {}
            self.steps[line["step"]] = kept | line

    def add(self, line):
        self._take(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def status(self, name):
        return self.steps.get(name, {}).get("status")

    def report(self, name):
        return self.steps.get(name, {}).get("report")

    def agree(self, field, now):
        """Numbers of two builds or two cards are not one result."""
        before = self.kit["programs"] if field == "build" else self.adapter
        if before != now:
            raise Refused(f"{self.path} is of another {field}: {before}, not {now}; run in another folder, or with --again")


class Process:
    """A step under way."""

    def __init__(self, step, visit):
        self.step, self.visit, self.begin = step, visit, time.monotonic()
        left = visit.deadline - PATIENCE - self.begin
        self.limit, self.cut = min(step.limit, left), left < step.limit
        self.json = visit.work / f"{file_name(step.name)}.json" if step.json else None
        self.log = visit.work / f"{file_name(step.name)}.log"
        env = visit.machine.env | step.env | {"PYTHONUNBUFFERED": "1"}
        self.seen = None
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._argv(),
                env=env,
                cwd=visit.work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def _argv(self):
        step, argv = self.step, list(self.step.argv)
        earlier = self.visit.results.report(step.name) if self.json else None
        if self.json and step.resume is not None and earlier is not None:
            self.json.write_text(json.dumps(earlier))
            self.seen = earlier
            argv += step.resume
        elif self.json:
            self.json.unlink(missing_ok=True)
        places = {"{json}": str(self.json)}
        places |= {f"{{report {name}}}": str(self.visit.report_file(name)) for name in needed(step)}
        return [places.get(word, word) for word in argv]

    def report(self):
        try:
            return json.loads(self.json.read_text()) if self.json else None
        except (OSError, ValueError):  # not there yet
            return None

    def poll(self):
        """Whether it is still under way. Its report so far is kept."""
        running = self.process.poll() is None
        over = time.monotonic() - self.begin > self.limit
        if running and over:
            self.stop()
        if running and not over:
            found = self.report()
            if found is not None and found != self.seen:
                self.seen = found
                self.visit.results.add({"step": self.step.name, "status": "under way", "report": found})
            return True
        self._end("cut short: the run's time was over" if over and self.cut else "over its limit" if over else None)
        return False

    def stop(self):
        """Asks it to end, and then ends what is left of it and of what it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(PATIENCE)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def _end(self, late):
        output = self.log.read_text(errors="replace")
        code, found = self.process.returncode, self.report()
        line = {"step": self.step.name, "status": "late" if late else "failed" if code else "done"}
        line["seconds"] = round(time.monotonic() - self.begin, 2)
        if late:
            line["reason"] = f"{late} ({self.limit:.0f} s)"
        elif code:
            last = [text.strip() for text in output.splitlines() if text.strip()]
            line["reason"] = f"exit code {code}: {last[-1] if last else 'said nothing'}"[:400]
        if self.step.harness:
            found = harness(output)
        if lacking := without_numbers(found):
            line.setdefault("reason", f"{lacking[0]}{f' and {len(lacking) - 1} more' if lacking[1:] else ''}"[:400])
            if self.step.right and line["status"] == "done":
                line["status"] = "failed"
        if found is not None:
            line["report"] = found
        self.visit.ended(line, output)


def end_with_parent():
    """In a step before it begins: a run that is killed takes it along, so that it does not disturb the next one."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        C_LIBRARY.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def without_numbers(report):
    """Parts of `wattn bench` that were neither measured nor, where timing would say nothing, found right."""
    cases = report.get("cases", []) if isinstance(report, dict) else []
    parts = [(case["id"], part["part"], part["outcome"]) for case in cases for part in case["parts"]]
    bad = [(name, part, outcome) for name, part, outcome in parts if outcome["is"] not in ("measured", "checked")]
    return [f"{name}: {part} {outcome['is']}: {outcome.get('reason')}" for name, part, outcome in bad]


def harness(output):
    """What Rust's test harness said: how many passed, and which failed or did not end."""
    lines = [line.split() for line in output.splitlines() if line.startswith("test ") and " ... " in line]
    of = lambda verdict: [words[1] for words in lines if words[-1] == verdict]
    return {"passed": len(of("ok")), "failed": of("FAILED")}


def file_name(step):
    return step.replace("/", "-")


def needed(step):
    """The steps whose reports it takes."""
    return [word[len("{report ") : -1] for word in step.argv if word and word.startswith("{report ")]


class Visit:
    def __init__(self, arguments, stage, scope):
        self.begin = time.monotonic()
        self.deadline = self.begin + arguments.seconds
        self.scope, self.running, self.only = scope, [], tuple(filter(None, (arguments.only or "").split(",")))
        out = pathlib.Path(arguments.out).resolve()
        self.work = out / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.results = Results(out / "results.jsonl", arguments.again)
        self.log = (out / "log").open("a")
        self.machine = machines.Machine(stage, self.work, arguments.adapter, arguments.python)
        if self.results.kit:
            self.results.agree("build", self.machine.facts["programs"])
        self.results.add({"kit": self.machine.facts})
        self.results.add({"machine": self.machine.describe(), "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        for note in self.machine.notes:
            self.say(note)

    def say(self, text):
        line = f"{time.monotonic() - self.begin:7.1f} s  {text}"
        print(line, flush=True)
        self.log.write(line + "\n")
        self.log.flush()

    def report_file(self, name):
        path = self.work / f"{file_name(name)}.json"
        path.write_text(json.dumps(self.results.report(name)))
        return path

    def ended(self, line, output):
        self.results.add(line)
        self.log.write(f"\n== {line['step']}\n{output.rstrip()}\n\n")
        report = line.get("report") or {}
        tests = f"{report['passed']} passed, {len(report['failed'])} failed" if "passed" in report else ""
        self.say(f"{line['step']:<28} {line['status']:<8} {line.get('seconds', 0):7.1f} s  {line.get('reason') or tests}")
        for failed in report.get("failed", []):
            self.say(f"    {failed}")

    def why_not(self, step):
        if step.missing:
            return "left out", step.missing
        if waits := [name for name in needed(step) if self.results.status(name) != "done"]:
            return "waits", f"for {', '.join(waits)}"
        if self.deadline - time.monotonic() < LEAST_SECONDS:
            return "no time", "the run's time was over"
        return None

    def run(self, steps):
        """One after the other; those in a row that may, side by side. All that there were."""
        jobs, seen = max(1, min(8, self.machine.cpus // 2)), []
        for step in steps:
            if self.only and not step.name.startswith(("info", *self.only)):
                continue
            seen.append(step)
            if self.results.status(step.name) in ENDED:
                continue
            while self.running and not (step.beside and self.running[0].step.beside and len(self.running) < jobs):
                self.wait()
            if reason := self.why_not(step):
                self.ended({"step": step.name, "status": reason[0], "reason": reason[1]}, "")
                continue
            try:
                self.running.append(Process(step, self))
            except OSError as error:
                self.ended({"step": step.name, "status": "failed", "reason": str(error)}, "")
        while self.running:
            self.wait()
        return seen

    def wait(self):
        before = len(self.running)
        self.running = [process for process in self.running if process.poll()]
        if len(self.running) == before:
            time.sleep(0.05)

    def stop(self):
        for process in self.running:
            process.stop()

    def all(self):
        info = lists.first(self.machine)
        # A card is known by its name and driver: both may differ on the next visit.
        before = self.results.adapter
        self.results.steps.pop(info.name, None)
        self.run([info])
        if self.results.status(info.name) != "done":
            return [info]
        found = self.results.report(info.name)
        adapter = {field: lists.adapter_of(found)[field] for field in ("name", "driver")}
        if before is not None:
            self.results.agree("adapter", adapter)
        self.results.add({"adapter": adapter})
        self.say(f"{adapter['name']}, {adapter['driver']}")
        return [info, *self.run(lists.all_steps(self.machine, found, self.scope))]


def unpacked(archive):
    """The folder of what was brought along; it is unpacked once."""
    facts = json.loads((archive.parent / "facts.json").read_text())
    folder = pathlib.Path(tempfile.gettempdir()) / f"wattn-kit-{facts['archive'][:16]}"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as files:
            # What is unpacked was packed by benches/visit/pack.py; the filter is for a python that asks for one.
            files.extractall(folder, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))
        (folder / "complete").touch()
    return folder


def seconds(text):
    value = float(text)
    if not 1 <= value <= 7 * 24 * 3600:
        raise argparse.ArgumentTypeError("must be from 1 to a week of seconds")
    return value


def main():
    parser = argparse.ArgumentParser(prog="run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", metavar="NAME", help="part of the adapter's name")
    parser.add_argument("--seconds", type=seconds, required=True, help="for all of it, unpacking included")
    parser.add_argument("--out", default=".", help="folder of the results [default: this one]")
    parser.add_argument("--again", action="store_true", help="do everything anew")
    parser.add_argument("--quick", action="store_true", help="few and small cases")
    parser.add_argument("--only", metavar="STEPS", help="only steps whose names begin with one of these, separated by commas")
    parser.add_argument("--python", help="the python that has the peers' packages [default: it is looked for]")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    begin = time.monotonic()
    stage = pathlib.Path(arguments.stage) if arguments.stage else unpacked(HERE / "kit.tar.xz")
    arguments.seconds -= time.monotonic() - begin
    scope = "quick" if arguments.quick else "full" if arguments.full else "visit"
    try:
        visit = Visit(arguments, stage, scope)
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 2

    def killed(number, _):
        visit.stop()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, killed)
    signal.signal(signal.SIGINT, killed)
    try:
        steps = visit.all()
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 2
    statuses = {step.name: visit.results.status(step.name) for step in steps}
    counts = {status: list(statuses.values()).count(status) for status in sorted(set(statuses.values()))}
    visit.say("steps: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    if "failed" in counts:
        return 1
    return 3 if set(counts) - {"done", "left out"} else 0


if __name__ == "__main__":
    sys.exit(main())
