//! Barriers, by analysis. Software drivers run the invocations of a workgroup one after the other, and no test that runs on
//! them misses a barrier that is not there. So each kernel is run here by an interpreter, with a shadow of who touched
//! each word since the last barrier: two invocations that touch the same word with no barrier between, one of them
//! writing, are an error whatever numbers come out. Every kernel and every file of `shaders/` takes part, and each
//! barrier is taken out once to see that it is missed.

#[path = "../common/mod.rs"]
mod common;

mod arith;
mod attend;
mod exprs;
mod language;
mod launch;
mod lower;
mod machine;
mod ops;
mod program;
mod select;
mod shadow;

use launch::{Case, Launch, Recorded};
use rayon::prelude::*;
use shadow::Fault;
use std::path::{Path, PathBuf};

fn cases() -> Vec<Case> {
    let mut cases = attend::cases();
    cases.extend(select::cases());
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
    /// Its barriers, by the number of their line from 0, and the file without each.
    fn without_barriers(&self) -> Vec<(usize, String)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut mutants = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            let mut mutated = None;
            for barrier in ["workgroupBarrier();", "storageBarrier();"] {
                if code.contains(barrier) {
                    mutated = Some(code.replacen(barrier, "", 1));
                }
            }
            if let Some((before, rest)) = code.split_once("workgroupUniformLoad(&") {
                let (place, after) = rest.split_once(')').unwrap();
                mutated = Some(format!("{before}{place}{after}"));
            }
            if let Some(mutated) = mutated {
                let mut changed = lines.clone();
                changed[at] = &mutated;
                mutants.push((at, changed.join("\n") + "\n"));
            }
        }
        mutants
    }
}

fn run_all(text: fn(&Launch) -> &str) -> Vec<Recorded> {
    let run = |case: &Case| case.run(text).unwrap_or_else(|fault| panic!("{fault}"));
    cases().par_iter().flat_map(run).collect()
}

/// What drivers get.
#[test]
fn no_barrier_is_missing() {
    run_all(Launch::shipped);
}

#[test]
fn every_barrier_is_missed() {
    let recorded = run_all(Launch::rolled);
    let mut mutants = Vec::new();
    for file in files() {
        let mut users: Vec<&Recorded> =
            recorded.iter().filter(|recorded| recorded.launch.rolled.contains(&file.text)).collect();
        assert!(!users.is_empty(), "shaders/{} takes part", file.name);
        users.sort_by_key(|recorded| recorded.steps);
        for (line, text) in file.without_barriers() {
            mutants.push((format!("shaders/{}:{}", file.name, line + 1), file.text.clone(), text, users.clone()));
        }
    }
    let redundant: Vec<_> = mutants
        .par_iter()
        .filter(|(_, original, mutated, users)| {
            !users.iter().any(|user| {
                let text = user.launch.rolled.replace(original, mutated);
                matches!(user.launch.run(&text, &mut user.before.clone()), Err(Fault::Race(_)))
            })
        })
        .map(|(name, ..)| name.as_str())
        .collect();
    println!("{} barriers", mutants.len());
    assert!(redundant.is_empty(), "nothing misses these: {redundant:#?}");
}
