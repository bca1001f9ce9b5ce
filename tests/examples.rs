//! Every example runs to its end; each checks its own result.

use std::path::PathBuf;
use std::process::Command;

/// `cargo test` builds the examples into the folder beside its own; `cargo test --test examples` does not.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    let profile = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let path = profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    if !path.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", name]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo starts").success());
    }
    path
}

#[track_caller]
fn runs(name: &str, last_line: &str) {
    let output = Command::new(example(name)).output().expect("the example starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    let last = stdout.lines().last().unwrap_or_default();
    assert!(last.contains(last_line), "{stdout}");
}

#[test]
fn one_shot_runs() {
    runs("one_shot", "largest difference from f64");
}

#[test]
fn own_device_runs() {
    runs("own_device", "largest difference from f64");
}

#[test]
fn decode_loop_runs() {
    runs("decode_loop", "100 tokens");
}

#[test]
fn sparse_prefill_runs() {
    runs("sparse_prefill", "of the weight");
}

#[test]
fn quest_runs() {
    runs("quest", "the pages of the definition");
}

#[test]
fn quality_runs() {
    runs("quality", "random blocks");
}

#[test]
fn sparse_decode_runs() {
    runs("sparse_decode", "33 tokens");
}

#[test]
fn llm_runs() {
    runs("llm", "tokens, ");
}
