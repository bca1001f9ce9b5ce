//! Text to tokens and back, by the `tokenizers` crate.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::IgnoredAny;
use tokenizers::Tokenizer;

use super::error::{LmError, LmResult};

/// The tokenizer of a model.
#[derive(Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
}

impl TextTokenizer {
    /// Reads the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn from_json(text: &str) -> LmResult<Self> {
        // On text that is no JSON the crate panics on some of its own errors.
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| failed(error.into()))?;
        guarded(|| {
            let mut tokenizer = text.parse::<Tokenizer>()?;
            // Truncation and padding, which belong to training, do not apply to prompts.
            tokenizer.with_truncation(None)?.with_padding(None);
            Ok(Self { tokenizer })
        })
    }

    /// The tokens of a text, without the special tokens around it.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn encode(&self, text: &str) -> LmResult<Vec<u32>> {
        Ok(guarded(|| self.tokenizer.encode(text, false))?.get_ids().to_vec())
    }

    /// The tokens of a text that begins a sequence, with the model's special tokens around it.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn encode_prompt(&self, text: &str) -> LmResult<Vec<u32>> {
        Ok(guarded(|| self.tokenizer.encode(text, true))?.get_ids().to_vec())
    }

    /// The tokens of a text, and the byte of the text where each ends.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn encode_with_ends(&self, text: &str) -> LmResult<(Vec<u32>, Vec<usize>)> {
        let encoding = guarded(|| self.tokenizer.encode(text, false))?;
        let ends = encoding.get_offsets().iter().map(|offsets| offsets.1).collect();
        Ok((encoding.get_ids().to_vec(), ends))
    }

    /// The text of tokens that are a whole text. For single tokens of a longer text many tokenizers drop the leading space, which a
    /// [`TextStream`](super::TextStream) keeps.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn decode(&self, tokens: &[u32]) -> LmResult<String> {
        guarded(|| self.tokenizer.decode(tokens, true))
    }

    /// Whether a token has no text.
    pub(super) fn is_special(&self, token: u32) -> bool {
        let of = |text: String| self.tokenizer.get_added_vocabulary().is_special_token(&text);
        self.tokenizer.id_to_token(token).is_some_and(of)
    }
}

/// The crate trusts a file's statements about itself, and panics on contradictions.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> LmResult<T> {
    let contradiction = |_| LmError::Tokenizer("the file contradicts itself".to_owned());
    catch_unwind(AssertUnwindSafe(work)).map_err(contradiction)?.map_err(failed)
}

fn failed(error: tokenizers::Error) -> LmError {
    LmError::Tokenizer(error.to_string())
}
