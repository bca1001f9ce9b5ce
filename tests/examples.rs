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

/// The output of an example, which must succeed.
#[track_caller]
fn output(name: &str) -> String {
    let output = Command::new(example(name)).output().expect("the example starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}

/// The number between two texts of an example's last line, which states its own result.
#[track_caller]
fn told(name: &str, before: &str, after: &str) -> f64 {
    let output = output(name);
    let last = output.lines().last().unwrap_or_default();
    let number = last
        .split_once(before)
        .and_then(|(_, rest)| rest.strip_suffix(after).or(rest.split_once(after).map(|at| at.0)));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("`{before}` in {output}"))
}

/// The size of arithmetic errors, smaller than a kernel's faults; an error of 0 would mean that a result was compared with itself.
fn is_rounding(error: f64) -> bool {
    0.0 < error && error < 1e-5
}

#[test]
fn one_shot_is_right() {
    assert!(is_rounding(told("one_shot", "largest difference from f64:", "")));
}

#[test]
fn own_device_is_right() {
    assert!(is_rounding(told("own_device", "largest difference from f64:", "")));
}

#[test]
fn decode_loop_is_right() {
    assert!(is_rounding(told("decode_loop", "100 tokens; the last one differs from the CPU path by at most", "")));
}

#[test]
fn sparse_decode_is_right() {
    assert!(is_rounding(told("sparse_decode", "33 tokens; the last one differs from the CPU path by at most", "")));
}

/// More than twice the mass of the same number of random keys: the example's own rule, which follows from its share of the keys.
#[test]
fn sparse_prefill_captures_most() {
    let captured = told("sparse_prefill", "capture", "% of the weight");
    assert!((10.0..100.0).contains(&captured), "{captured}");
}

#[test]
fn quest_takes_the_pages_of_its_definition() {
    assert!(output("quest").contains("the pages of the definition, on the CPU and"));
}

#[test]
fn quality_tells_methods_apart() {
    let hip = told("quality", "HiP keeps", "of the attention");
    let random = told("quality", "random blocks", "");
    assert!(hip > 3.0 * random && hip <= 1.0 && random > 0.0, "{hip} {random}");
}

/// Each kind of attention writes the number of tokens that the example asks for, or ends its text.
#[test]
fn llm_writes() {
    let output = output("llm");
    let counts = output.lines().filter_map(|line| line.split_once(" tokens, ")?.0.parse::<u32>().ok());
    let counts: Vec<u32> = counts.collect();
    let kinds = output.lines().filter(|line| line.starts_with('[')).count();
    assert!(kinds >= 2 && counts.len() == kinds, "{output}");
    assert!(counts.iter().all(|&count| count > 8), "{output}");
}
