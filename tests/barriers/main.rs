//! Barriers, by analysis. Software drivers run the invocations of a workgroup one after the other, so no test that runs on them notices a
//! missing barrier. Here an interpreter runs each kernel, with a shadow that records accesses to each word since the last barrier: two
//! invocations that access the same word with no barrier between, one of them writing, are an error whatever the results. Every kernel and
//! every file of `shaders/` takes part, and the test removes each barrier once to see that the analysis notices.

#[path = "../common/mod.rs"]
mod common;

mod arith;
mod attend;
mod banks;
mod blocks;
mod exprs;
mod language;
mod launch;
mod lower;
mod machine;
mod modified;
mod ops;
mod program;
mod select;
mod shadow;
mod snippets;

use std::path::{Path, PathBuf};

use launch::{Case, Launch, Recorded};
use rayon::prelude::*;
use shadow::Fault;

fn cases() -> Vec<Case> {
    let mut cases = attend::cases();
    cases.extend(modified::cases());
    cases.extend(select::cases());
    cases.extend(blocks::cases());
    cases.extend(language::cases());
    cases
}

/// A file of `shaders/`, by its path there.
struct File {
    name: String,
    text: String,
}

fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let (mut folders, mut paths) = (vec![root.clone()], Vec::<PathBuf>::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut folders } else { &mut paths }.push(path);
        }
    }
    paths.sort();
    let name = |path: &PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
    paths.iter().map(|path| File { name: name(path), text: std::fs::read_to_string(path).unwrap() }).collect()
}

impl File {
    /// Its barriers, each as the path and the line, and the file without it.
    fn without_barriers(&self) -> Vec<(String, String)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut mutants = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            if let Some(mutated) = without_barrier(line) {
                let mut changed = lines.clone();
                changed[at] = &mutated;
                mutants.push((format!("{}: {}", self.name, line.trim()), changed.join("\n") + "\n"));
            }
        }
        mutants
    }
}

/// A line without its barrier; `None` where it has none. A load between barriers becomes a plain load.
fn without_barrier(line: &str) -> Option<String> {
    let code = line.split("//").next().unwrap();
    for barrier in ["workgroupBarrier();", "storageBarrier();"] {
        if code.contains(barrier) {
            return Some(code.replacen(barrier, "", 1));
        }
    }
    let (before, rest) = code.split_once("workgroupUniformLoad(&")?;
    let (place, after) = rest.split_once(')').unwrap();
    Some(format!("{before}{place}{after}"))
}

fn run_all(cases: Vec<Case>, text: fn(&Launch) -> &str) -> Vec<Recorded> {
    let run = |case: &Case| case.run(text).unwrap_or_else(|fault| panic!("{fault}"));
    cases.par_iter().flat_map(run).collect()
}

/// The texts that drivers get, with their loops unrolled; and all kinds of tilings.
#[test]
fn no_barrier_is_missing() {
    run_all(cases(), Launch::shipped);
    run_all(attend::tilings(), Launch::rolled);
    run_all(select::tilings(), Launch::rolled);
}

/// Barriers that are redundant: other barriers order the same accesses, or the same invocation writes and reads.
const REDUNDANT: [&str; 1] = [
    // The list is read and the next search's groups are written by the same invocation.
    "beam/scratch.wgsl: storageBarrier(); // orders the scratch of this search and the next one's",
];

#[test]
fn every_barrier_is_missed() {
    let recorded = run_all(cases(), Launch::rolled);
    let mut mutants = Vec::new();
    for file in files() {
        let mut users: Vec<&Recorded> = recorded.iter().filter(|recorded| recorded.launch.has(&file.text)).collect();
        // All cases have an lse; the member that stores none does nothing.
        let empty = file.name == "lse/none.wgsl";
        assert!(!users.is_empty() || empty, "shaders/{} takes no part", file.name);
        users.sort_by_key(|recorded| recorded.steps);
        for (name, text) in file.without_barriers() {
            mutants.push((name, file.text.clone(), text, users.clone()));
        }
    }
    assert!(mutants.len() > 40, "{} barriers", mutants.len());
    let is_missed = |(_, original, mutated, users): &(String, String, String, Vec<&Recorded>)| {
        users.iter().any(|user| {
            let text = user.launch.rolled.replace(original, mutated);
            matches!(user.launch.run(&text, &mut user.before.clone()), Err(Fault::Race(_)))
        })
    };
    let redundant: Vec<_> =
        mutants.par_iter().filter(|mutant| !is_missed(mutant)).map(|(name, ..)| name.as_str()).collect();
    assert_eq!(redundant, REDUNDANT, "left: what nothing misses");
    // Without all of them at once the analysis finds no fault either.
    for file in files() {
        let kept = |line: &str| {
            let redundant = REDUNDANT.contains(&format!("{}: {}", file.name, line.trim()).as_str());
            if redundant { without_barrier(line).unwrap() } else { line.to_owned() }
        };
        let text = file.text.lines().map(kept).collect::<Vec<_>>().join("\n") + "\n";
        if text != file.text {
            for user in recorded.iter().filter(|recorded| recorded.launch.rolled.contains(&file.text)) {
                let text = user.launch.rolled.replace(&file.text, &text);
                user.launch.run(&text, &mut user.before.clone()).unwrap_or_else(|fault| panic!("{fault}"));
            }
        }
    }
}

#[test]
fn every_barrier_names_what_it_orders() {
    for file in files() {
        for (at, line) in file.text.lines().enumerate() {
            let (code, comment) = line.split_once("//").unwrap_or((line, ""));
            let names = comment.trim_start().strip_prefix("orders ").is_some_and(|names| !names.is_empty());
            assert!(!code.contains("Barrier()") || names, "shaders/{}:{}: {line}", file.name, at + 1);
        }
    }
}
