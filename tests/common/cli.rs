//! Helpers of the tests of the `wattn` command: the program, its files, and checks of success and failure.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, TensorView, serialize};
use wattn::{Element, HostTensor};

/// The program's answer to arguments.
pub fn wattn(args: &[&str]) -> Output {
    // The test does not use the user's cache folder.
    wattn_in(Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/cache")), args)
}

/// The same with a cache folder for this test.
pub fn wattn_in(cache: &Path, args: &[&str]) -> Output {
    // The program lies where it was built, or where the variable of a kit built elsewhere says.
    let path = std::env::var_os("CARGO_BIN_EXE_wattn").unwrap_or_else(|| env!("CARGO_BIN_EXE_wattn").into());
    let mut program = Command::new(path);
    program.env("XDG_CACHE_HOME", cache).args(args).output().expect("the binary starts")
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Exit code 2, nothing on stdout, exactly one line on stderr that starts with `error: ` and contains `part`.
#[track_caller]
pub fn assert_fails(output: &Output, part: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(stderr.contains(part), "{stderr:?} lacks {part:?}");
}

/// Exit code 0 and nothing on stderr; gives stdout.
#[track_caller]
pub fn assert_succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

/// Exit code 0; returns stdout, a result, and stderr, the messages about it.
#[track_caller]
pub fn assert_tells(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it is UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

/// Values between -2 and 2 that repeat after a prime number of steps, so that swapped rows change the answer.
pub fn painted<T: Element>(shape: [u32; 4], step: usize) -> HostTensor<T> {
    let len = shape.iter().map(|&n| n as usize).product();
    let value = |i: usize| T::from_f32((i * step % 251) as f32 / 62.5 - 2.0);
    HostTensor::new(shape, (0..len).map(value).collect()).unwrap()
}

pub fn bytes<T: Element>(tensor: &HostTensor<T>) -> Vec<u8> {
    bytemuck::cast_slice(tensor.data()).to_vec()
}

/// One tensor of a safetensors file.
pub type Entry<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

/// An entry that holds a tensor.
pub fn entry<'a, T: Element>(name: &'a str, dtype: Dtype, tensor: &HostTensor<T>) -> Entry<'a> {
    (name, dtype, tensor.shape().map(|n| n as usize).to_vec(), bytes(tensor))
}

/// Writes a safetensors file.
pub fn write_file(path: &Path, entries: &[Entry<'_>]) {
    let views = entries.iter().map(|(name, dtype, shape, data)| {
        (*name, TensorView::new(*dtype, shape.clone(), data).expect("the entry is consistent"))
    });
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

/// A temporary folder.
pub struct Folder {
    pub dir: tempfile::TempDir,
}

impl Folder {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// The numbers of an F32 tensor.
pub fn f32s(tensor: &TensorView<'_>) -> Vec<f32> {
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}
