//! A kernel is one stem in four places, and files have their place and their size.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wattn::kernels;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Stems of the files with this extension directly in a folder.
fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
    let folder = root().join(folder);
    files(&folder)
        .into_iter()
        .filter(|path| path.parent() == Some(&folder) && path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_kernel_has_its_four_places() {
    let shaders = stems("shaders", "wgsl");
    let described: BTreeSet<String> = kernels::ALL.iter().map(|kernel| kernel.name().to_owned()).collect();
    assert_eq!(shaders, described, "shaders/*.wgsl and kernels::ALL");
    let (hosts, twins) = (stems("src/kernels", "rs"), stems("src/cpu/twins", "rs"));
    let gpu_tests: Vec<String> = files(&root().join("tests"))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gpu_")))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    // Operators whose definition is as short as a twin would be.
    let by_oracle = [("pool_blocks", "pool_cases"), ("score_blocks", "score_cases"), ("select_top_k", "top_k_cases")];
    for stem in &shaders {
        assert!(hosts.contains(stem), "src/kernels/{stem}.rs is missing");
        if let Some((_, cases)) = by_oracle.iter().find(|(kernel, _)| kernel == stem) {
            assert!(gpu_tests.iter().any(|text| text.contains(cases)), "no GPU test runs {cases}");
            continue;
        }
        assert!(twins.contains(stem), "src/cpu/twins/{stem}.rs is missing");
        let named = format!("twins::{stem}");
        assert!(gpu_tests.iter().any(|text| text.contains(&named)), "no GPU test compares with {named}");
    }
}

/// Lines of code of a file, without comments and tests.
fn lines_of_code(path: &str) -> usize {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn an_operator_of_one_kernel_costs_few_lines() {
    let of = |stem: &str, kernel: &str| {
        let places = [format!("src/kernels/{kernel}.rs"), format!("src/plan/{stem}.rs"), format!("src/ops/{stem}.rs")];
        places.iter().map(|path| lines_of_code(path)).sum::<usize>()
    };
    let (pool, merge) = (of("pool", "pool_blocks"), of("merge", "merge_splits"));
    println!("pool {pool}, merge {merge}");
    assert!(pool < 100, "{pool} lines of host code in the kernel's table, plan and binding of Pool");
}

#[test]
fn one_program_has_every_gpu_test() {
    let program = std::fs::read_to_string(root().join("tests/gpu_all/main.rs")).unwrap();
    let stems: Vec<_> = stems("tests", "rs").into_iter().filter(|stem| stem.starts_with("gpu_")).collect();
    assert!(!stems.is_empty());
    let listed: String = stems.iter().map(|stem| format!("#[path = \"../{stem}.rs\"]\nmod {stem};\n")).collect();
    assert!(program.ends_with(&format!("\n\n{listed}")), "tests/gpu_all/main.rs must end with\n{listed}");
}

#[test]
fn kernels_know_their_own_names() {
    for kernel in kernels::ALL {
        assert_eq!(kernel.label(), format!("wattn.{}", kernel.name()));
    }
}

#[test]
fn source_files_are_short() {
    for folder in ["src", "shaders", "tests", "benches"] {
        for path in files(&root().join(folder)) {
            let source = path.extension().is_some_and(|extension| extension == "rs" || extension == "wgsl");
            if source {
                let lines = std::fs::read_to_string(&path).unwrap().lines().count();
                assert!(lines <= 450, "{} has {lines} lines", path.display());
            }
        }
    }
}

#[test]
fn nothing_lies_around_at_the_top() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "CHANGELOG.md",
        "src",
        "shaders",
        "benches",
        "tests",
        "examples",
        "findings",
        "target",
    ];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "{name} has no place at the top");
    }
}

#[test]
fn every_page_is_listed() {
    let (lib, readme) = (include_str!("../src/lib.rs"), include_str!("../README.md"));
    let pages = stems("src/docs", "md");
    assert!(pages.contains("devices"));
    for page in pages {
        assert!(lib.contains(&format!("include_str!(\"docs/{page}.md\")")), "src/lib.rs does not include {page}.md");
        assert!(readme.contains(&format!("(src/docs/{page}.md)")), "README.md does not link {page}.md");
    }
}

/// The parts that a script of `findings/` lacks.
fn faults_of_finding(text: &str) -> Vec<&'static str> {
    let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
    let said = |word: &str| head.iter().any(|line| line.strip_prefix("# ").is_some_and(|said| said.starts_with(word)));
    let code = || text.lines().filter(|line| !line.starts_with('#'));
    let has_line = |wanted: &str| code().any(|line| line == wanted);
    let pinned = |line: &str| {
        let python = line.starts_with("install_python");
        if python {
            line.split_whitespace().skip(2).all(|package| package.contains("=="))
        } else {
            line.split(['@', ' '])
                .any(|word| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit()))
        }
    };
    let mut installs = code().filter(|line| line.starts_with("install_") || line.contains("npm pack")).peekable();
    let checks = [
        (head.first() == Some(&"#!/usr/bin/env bash"), "does not say that bash runs it"),
        (head.get(1).is_some_and(|line| line.len() > 20), "does not say what it shows"),
        (said("Guess: ") && head.iter().any(|line| line.contains(" %)")), "has no guess with its confidence"),
        (said("What happens: "), "does not say what happens"),
        (said("Version: "), "names no version"),
        (said("Source: "), "names no source"),
        (has_line("set -euo pipefail"), "goes on after a failure"),
        (has_line("work=$(mktemp -d)"), "makes no temporary folder"),
        (has_line("trap 'rm -rf \"$work\"' EXIT"), "does not remove its folder"),
        (installs.peek().is_some(), "installs nothing"),
        (installs.all(pinned), "installs something without a version"),
        (text.contains("CHANGED") || text.contains("/evaluate."), "does not fail when the behaviour changes"),
        (!text.contains("wattn"), "needs this project"),
    ];
    checks.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault).collect()
}

#[test]
fn findings_have_their_form() {
    let folder = root().join("findings");
    assert!(folder.join("README.md").is_file());
    let found = stems("findings", "sh");
    let read = |stem: &str| std::fs::read_to_string(folder.join(stem).with_extension("sh")).unwrap();
    for stem in &found {
        assert_eq!(faults_of_finding(&read(stem)), Vec::<&str>::new(), "findings/{stem}.sh");
    }
    for path in files(&folder.join("common")) {
        assert!(!std::fs::read_to_string(&path).unwrap().contains("wattn"), "{} needs this project", path.display());
    }
    // A script that loses a required part is reported.
    let example = read("wgsl-packing-moves-the-other-half");
    for part in [
        "#!/usr/bin/env bash",
        "# Guess: ",
        " %)",
        "# What happens: ",
        "# Version: ",
        "# Source: ",
        "set -e",
        "mktemp",
        "trap ",
    ] {
        assert!(!faults_of_finding(&example.replace(part, "")).is_empty(), "{part} may be missing");
    }
    for (part, fault) in [
        ("153.0.0", "latest"),
        ("0.6.2", "latest"),
        ("install_", "have_"),
        ("/evaluate.", "/run."),
        ("Source", "wattn"),
    ] {
        assert!(!faults_of_finding(&example.replace(part, fault)).is_empty(), "{part} may be {fault}");
    }
}
