//! Checkpoints of `tests/golden/lm` and what transformers computes from them.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use wattn::lm::Model;

/// The cases that `make_golden.py` writes.
pub const CASES: [&str; 6] =
    ["llama_f32_sharded", "llama_bf16_biased", "mistral_f16", "qwen2_bf16_sharded", "qwen3_f16", "qwen3_f32_tied"];

/// Largest difference of logits, as a share of their root mean square, that f32 arithmetic in another order explains:
/// a few hundred roundings of 2^-24 in each of a dozen products, each about half as wide again by the random weights.
pub const TOLERANCE: f32 = 1e-4;

pub fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm").join(case)
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
    let (tokens, logits) = read_golden(&folder.join("golden.safetensors"));
    Golden { model, tokens, logits }
}

/// `tokens` and `logits` of a golden file.
pub fn read_golden(path: &Path) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| -> Vec<u32> {
        let data = tensors.tensor(name).unwrap().data();
        data.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    };
    (words("tokens"), words("logits").into_iter().map(f32::from_bits).collect())
}

/// The largest difference as a share of the root mean square of what is wanted.
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
