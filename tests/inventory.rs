//! A kernel is one stem in four places, and files have their place and their size.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wattn::KernelId;

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
    let kernels: BTreeSet<String> = KernelId::ALL.iter().map(|kernel| kernel.name().to_owned()).collect();
    assert_eq!(shaders, kernels, "shaders/*.wgsl and KernelId::ALL");
    let (hosts, twins) = (stems("src/kernels", "rs"), stems("src/cpu", "rs"));
    let gpu_tests: Vec<String> = files(&root().join("tests"))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gpu_")))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for stem in &shaders {
        assert!(hosts.contains(stem), "src/kernels/{stem}.rs is missing");
        assert!(twins.contains(stem), "src/cpu/{stem}.rs is missing");
        let named = format!("twins::{stem}");
        assert!(gpu_tests.iter().any(|text| text.contains(&named)), "no GPU test compares with {named}");
    }
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
    for kernel in KernelId::ALL {
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
        "target",
    ];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "{name} has no place at the top");
    }
}
