//! Checkpoints of `tests/golden/lm` and the results of transformers for them.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use tempfile::TempDir;
use wattn::lm::Model;

/// The cases that `make_golden.py` writes.
pub const CASES: [&str; 6] =
    ["llama_f32_sharded", "llama_bf16_biased", "mistral_f16", "qwen2_bf16_sharded", "qwen3_f16", "qwen3_f32_tied"];

/// Largest difference of logits, as a share of their root mean square, that f32 arithmetic in another order explains: a few hundred
/// roundings of 2^-24 in each of a dozen products, which the random weights amplify by about half each.
pub const TOLERANCE: f32 = 1e-4;

/// The project's folder, with the files that tests read. A program carried to another machine finds it in the variable that cargo sets for
/// tests.
pub fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

pub fn folder(case: &str) -> PathBuf {
    root().join("tests/golden/lm").join(case)
}

pub struct Golden {
    pub model: Arc<Model>,
    pub tokens: Vec<u32>,
    /// `[tokens, vocab_size]`.
    pub logits: Vec<f32>,
}

pub fn golden(case: &str) -> Golden {
    let folder = folder(case);
    let model = Arc::new(Model::open(&folder).unwrap_or_else(|error| panic!("{case}: {error}")));
    let [tokens, logits] = golden_words(&folder, ["tokens", "logits"]);
    Golden { model, tokens, logits: logits.into_iter().map(f32::from_bits).collect() }
}

/// Tensors of 4-byte elements in the golden file of a folder.
pub fn golden_words<const N: usize>(folder: &Path, names: [&str; N]) -> [Vec<u32>; N] {
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    names.map(|name| {
        let data = tensors.tensor(name).unwrap().data();
        data.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    })
}

/// A copy of a case, to be changed.
pub fn copy(case: &str) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder(case)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

/// The largest difference as a share of the root mean square of the expected numbers.
pub fn difference(got: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(got.len(), wanted.len());
    let square: f64 = wanted.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let scale = (square / wanted.len() as f64).sqrt() as f32;
    got.iter()
        .zip(wanted)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
        / scale
}
