//! Text to tokens and back, by the `tokenizers` crate.

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
        let tokenizer = text.parse::<Tokenizer>().map_err(failed)?;
        Ok(Self { tokenizer })
    }

    /// The tokens of a text, without those that a model wants around it.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn encode(&self, text: &str) -> LmResult<Vec<u32>> {
        Ok(self.tokenizer.encode(text, false).map_err(failed)?.get_ids().to_vec())
    }

    /// The tokens of a text that begins a sequence, with those that the model wants around it.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn encode_prompt(&self, text: &str) -> LmResult<Vec<u32>> {
        Ok(self.tokenizer.encode(text, true).map_err(failed)?.get_ids().to_vec())
    }

    /// The tokens of a text, and the byte of the text where each ends.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn encode_with_ends(&self, text: &str) -> LmResult<(Vec<u32>, Vec<usize>)> {
        let encoding = self.tokenizer.encode(text, false).map_err(failed)?;
        let ends = encoding.get_offsets().iter().map(|offsets| offsets.1).collect();
        Ok((encoding.get_ids().to_vec(), ends))
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn decode(&self, tokens: &[u32]) -> LmResult<String> {
        self.tokenizer.decode(tokens, true).map_err(failed)
    }
}

fn failed(error: tokenizers::Error) -> LmError {
    LmError::Tokenizer(error.to_string())
}

/// The text of tokens that come one by one. A character may take several tokens.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    tokens: Vec<u32>,
    /// Text of the tokens before the last character that was whole.
    told: String,
}

impl<'a> TextStream<'a> {
    /// A stream without tokens.
    #[must_use]
    pub const fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self { tokenizer, tokens: Vec::new(), told: String::new() }
    }

    /// The text that a token adds; empty while a character is not whole.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`].
    pub fn push(&mut self, token: u32) -> LmResult<String> {
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let new = text.strip_prefix(&self.told).unwrap_or_default().to_owned();
        // Decoding all tokens each time would be quadratic; the last ones tell how the next begins.
        if self.tokens.len() > 16 && text.ends_with('\n') {
            self.tokens.drain(..self.tokens.len() - 1);
            self.told = self.tokenizer.decode(&self.tokens)?;
        } else {
            self.told = text;
        }
        Ok(new)
    }
}
