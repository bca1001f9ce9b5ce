//! The kit that measures a GPU in one visit, tested with stand-in programs: a killed run keeps its results, the next run resumes, and the
//! page of hardware results agrees with the files. Needs python3.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// `info`, `bench` and `tune` leave reports; a bench of prompts hangs after its first case while there is a file `hang`.
const WATTN: &str = r#"#!/usr/bin/env bash
here=$(cd "${0%/*}/.." && pwd)
echo "$*" >>"$here/calls"
command=$1 all="$*" json=
while [ $# -gt 0 ]; do
    case "$1" in --json | --export) json=$2 ;; esac
    shift
done
case "$command" in
    info) echo '{"adapters": [{"name": "Pretend", "driver": "1", "kind": "Cpu", "shader_f16": true, "subgroup_size": null, "matrix_edge": null}]}' >"$json" ;;
    *)
        if [ -e "$here/hang" ] && [[ "$all" == *prefill/8x1024x1024x64,decode* ]]; then
            echo '{"cases": [{"id": "one", "parts": []}]}' >"$json"
            exec sleep 600
        fi
        outcome='{"is": "measured"}'
        if [ -e "$here/refuse" ] && [[ "$all" == *"--tier f16"* ]]; then outcome='{"is": "skipped", "reason": "no such tier"}'; fi
        echo '{"cases": [{"id": "one", "parts": [{"part": "dense", "outcome": '"$outcome"'}]}]}' >"$json" ;;
esac
"#;

const GPU_ALL: &str = r#"#!/usr/bin/env bash
here=$(cd "${0%/*}/.." && pwd)
if [ "$1" = --list ]; then printf 'gpu_merge::one: test\ngpu_merge::two: test\ngpu_attend::long: test\n'; exit; fi
echo "gpu_all $*" >>"$here/calls"
printf 'test gpu_merge::one ... ok\ntest gpu_merge::two ... ok\n'
"#;

struct Kit {
    folder: TempDir,
}

impl Kit {
    fn new() -> Self {
        let kit = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(kit.path("bin")).unwrap();
        for (name, text) in [("wattn", WATTN), ("gpu_all", GPU_ALL)] {
            let path = kit.path("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        kit.facts("first");
        kit
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn facts(&self, programs: &str) {
        let facts =
            format!(r#"{{"commit": "0", "programs": "{programs}", "glibc_of_programs": [0, 0], "python": "3.12"}}"#);
        fs::write(self.path("facts.json"), facts).unwrap();
    }

    /// A run in the folder `out`, with a python that has no package.
    fn run(&self, seconds: u32, options: &[&str]) -> Child {
        let mut command = Command::new("python3");
        command.arg(root().join("benches/visit/visit.py")).args(["Pretend", "--quick", "--python", "false"]);
        command.arg("--seconds").arg(seconds.to_string()).args(["--stage", ".", "--out", "out"]).args(options);
        command.current_dir(self.folder.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("tests of the kit need python3")
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("out/results.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The outcome in the last line of a step.
    fn status(&self, step: &str) -> (String, String) {
        let lines = self.lines();
        let last =
            lines.iter().rev().find(|line| line["step"] == step).unwrap_or_else(|| panic!("no {step}: {lines:?}"));
        let text = |field: &str| last[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    /// How often a program was called with this in its arguments.
    fn calls(&self, with: &str) -> usize {
        fs::read_to_string(self.path("calls")).unwrap().lines().filter(|line| line.contains(with)).count()
    }

    fn wait_for(&self, what: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        while !self.lines().iter().any(&what) {
            assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", self.lines());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The exit code and the output.
fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

const DENSE: &str = "bench --backend gpu --adapter Pretend --cases prefill/8x1024x1024x64,decode/8x1x4096x128";

#[test]
fn a_killed_run_loses_no_more_than_the_step_under_way() {
    let kit = Kit::new();
    fs::write(kit.path("hang"), "").unwrap();
    let mut first = kit.run(300, &[]);
    kit.wait_for(|line| line["step"] == "dense" && line["report"]["cases"][0]["id"] == "one");
    first.kill().unwrap();
    first.wait().unwrap();
    // As if the kill had come in the middle of a line.
    let path = kit.path("out/results.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{{\"step\": \"spa")).unwrap();
    fs::remove_file(kit.path("hang")).unwrap();
    // Only the results of the first run are carried over.
    fs::remove_dir_all(kit.path("out/work")).unwrap();

    let (code, said) = ended(kit.run(300, &[]));
    assert_eq!(code, Some(0), "{said}");
    for step in ["info", "tier/baseline", "tier/f16", "tests/gpu_merge", "dense", "sparse", "tune", "tuned"] {
        assert_eq!(kit.status(step).0, "done", "{said}");
    }
    assert_eq!((kit.calls("info"), kit.calls("--tier baseline"), kit.calls("gpu_all gpu_merge::")), (2, 1, 1));
    assert_eq!((kit.calls(DENSE), kit.calls("--resume")), (2, 1));
    assert!(kit.calls("--tuning") == 1 && kit.calls("gpu_attend") == 0);

    // Missing results are left out by name.
    for (step, reason) in [
        ("tier/matrix", "matrix_edge"),
        ("torch", "torch"),
        ("llama/4x256x256x64-f16", "numpy"),
        ("ort/4x1x512x64-f16", "onnx"),
    ] {
        let (status, why) = kit.status(step);
        let ok = status == "left out" && (why.contains(reason) || why.contains("not brought along"));
        assert!(ok, "{step}: {status}: {why}");
    }
    let (code, said) = ended(kit.run(300, &[]));
    assert_eq!((code, kit.calls("bench"), kit.calls("info")), (Some(0), 6, 3), "{said}");

    // Another build's numbers do not stand beside these, and with --again all steps run anew.
    kit.facts("second");
    let (code, said) = ended(kit.run(300, &[]));
    assert!(code == Some(2) && said.contains("another build"), "{said}");
    let (code, said) = ended(kit.run(300, &["--again"]));
    assert_eq!((code, kit.calls("bench"), kit.calls("gpu_all gpu_merge::")), (Some(0), 11, 2), "{said}");
}

#[test]
fn a_run_ends_in_time_and_says_what_is_left() {
    let kit = Kit::new();
    fs::write(kit.path("hang"), "").unwrap();
    let begin = Instant::now();
    let (code, said) = ended(kit.run(20, &[]));
    assert!(begin.elapsed() < Duration::from_secs(40), "{said}");
    assert_eq!(code, Some(3), "{said}");
    let (status, why) = kit.status("dense");
    assert!(status == "late" && why.contains("cut short"), "{status}: {why}");
    assert_eq!(kit.status("sparse").0, "no time");
    assert_eq!(kit.status("tuned").0, "waits");
}

#[test]
fn a_step_that_fails_does_not_stop_the_others() {
    let kit = Kit::new();
    let broken =
        GPU_ALL.replace("two ... ok", "two ... FAILED").replace("printf 'test", "trap 'exit 101' EXIT\nprintf 'test");
    fs::write(kit.path("bin/gpu_all"), broken).unwrap();
    fs::write(kit.path("refuse"), "").unwrap();
    let (code, said) = ended(kit.run(300, &[]));
    assert_eq!(code, Some(1), "{said}");
    assert_eq!((kit.status("tests/gpu_merge").0.as_str(), kit.status("tuned").0.as_str()), ("failed", "done"));
    // A tier that was not tried does not count as right.
    let (status, why) = kit.status("tier/f16");
    assert!(status == "failed" && why.contains("no such tier"), "{status}: {why}");
    assert_eq!(kit.status("tier/baseline").0, "done");
    let lines = kit.lines();
    let report = &lines.iter().rev().find(|line| line["step"] == "tests/gpu_merge").unwrap()["report"];
    assert_eq!(report, &serde_json::json!({"passed": 1, "failed": ["gpu_merge::two"]}));
    assert!(said.contains("gpu_merge::two"), "{said}");
}

#[test]
fn the_page_says_of_hardware_what_was_measured() {
    let check = |page: Option<&Path>| {
        let mut command = Command::new("python3");
        command.arg(root().join("benches/visit/table.py")).arg("--check");
        if let Some(page) = page {
            command.arg("--page").arg(page);
        }
        ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tests of the kit need python3"))
    };
    let (code, said) = check(None);
    assert_eq!(code, Some(0), "{said}");
    let page = tempfile::NamedTempFile::new().unwrap();
    let text = fs::read_to_string(root().join("src/docs/performance.md")).unwrap();
    assert!(text.contains("| 32x8192x8192x128-f16 | 75 | 133 | 317 |"));
    fs::write(page.path(), text.replace("| 75 | 133 | 317 |", "| 750 | 133 | 317 |")).unwrap();
    assert_eq!(check(Some(page.path())).0, Some(1));
}
