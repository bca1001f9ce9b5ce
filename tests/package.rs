//! The package that goes to a registry.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Largest package in bytes, a round number below the 10 MiB of crates.io.
const LARGEST: u64 = 10_000_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Packs the crate as `cargo publish` does.
#[test]
fn a_registry_takes_its_size() {
    let target = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["package", "--no-verify", "--allow-dirty", "--offline", "--target-dir"])
        .arg(target.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packed = target.path().join("package").join(concat!("wattn-", env!("CARGO_PKG_VERSION"), ".crate"));
    let bytes = fs::metadata(&packed).unwrap().len();
    assert!(bytes < LARGEST, "{} has {bytes} bytes: see `exclude` in Cargo.toml", packed.display());
}

/// A registry shows the README without the files beside it.
#[test]
fn the_readme_shows_pictures_from_the_web() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let pictures: Vec<&str> = readme.split("![").skip(1).map(|rest| rest.split_once("](").unwrap().1).collect();
    assert!(!pictures.is_empty());
    for picture in pictures {
        let address = picture.split_once(')').unwrap().0;
        assert!(address.starts_with("https://"), "{address}");
    }
}
