//! Texts as tokens with their bytes.

use std::path::Path;

use wattn::lm::{LmResult, Model};

use crate::failure::Failure;
use crate::files;

/// Longest text that is read, in bytes: eight million tokens.
const MAX_LENGTH: u64 = 32 << 20;

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let too_long = || Failure::content(path, format!("is longer than {MAX_LENGTH} bytes"));
    if std::fs::metadata(path).is_ok_and(|file| file.len() > MAX_LENGTH) {
        return Err(too_long());
    }
    // A source without a known length may be endless.
    let bytes = files::read_up_to(path, MAX_LENGTH + 1)?;
    if bytes.len() as u64 > MAX_LENGTH {
        return Err(too_long());
    }
    String::from_utf8(bytes).map_err(|_| Failure::content(path, "is not UTF-8 text"))
}

/// A document as a model reads it.
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Byte of the text where each token ends.
    ends: Vec<usize>,
}

impl Tokens {
    pub(crate) fn new(model: &Model, text: &str) -> LmResult<Self> {
        let (ids, ends) = model.tokenizer().encode_with_ends(text)?;
        Ok(Self { ids, ends })
    }

    /// Bytes of the tokens from `start` to `end`.
    pub(crate) fn bytes(&self, start: usize, end: usize) -> usize {
        let end_of = |count: usize| if count == 0 { 0 } else { self.ends[count - 1] };
        end_of(end) - end_of(start)
    }
}

/// Nats of some tokens as bits for each of their bytes.
pub(crate) fn bits_per_byte(nats: f64, bytes: usize) -> f64 {
    nats / core::f64::consts::LN_2 / bytes as f64
}
