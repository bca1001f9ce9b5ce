//! The text of tokens that come one by one.

use super::error::LmResult;
use super::tokenizer::TextTokenizer;

/// After this many tokens an incomplete character stays incomplete: each token has at least one byte of it, and it has at most four.
const MOST_PENDING: usize = 8;

/// Limit on the tokens of the earlier text that are decoded to find a beginning.
const BEFORE: [usize; 4] = [8, 16, 32, 64];

/// Decodes tokens that arrive one by one. A character may take several tokens, and the text of a token may depend on earlier ones, above
/// all the space at the beginning of a word.
///
/// The pieces together are the text of all tokens. The cost of a token does not grow with the text.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    /// The last tokens: the tokens of the last complete piece, and all later ones.
    tokens: Vec<u32>,
    /// Number of tokens of the last complete piece.
    whole: usize,
    /// The returned part of the text of `tokens`.
    told: String,
}

impl<'a> TextStream<'a> {
    /// A stream at the beginning of a text.
    #[must_use]
    pub const fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self { tokenizer, tokens: Vec::new(), whole: 0, told: String::new() }
    }

    /// A stream that continues after tokens whose text is known, such as a prompt.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`](super::LmError::Tokenizer).
    pub fn after(tokenizer: &'a TextTokenizer, tokens: &[u32]) -> LmResult<Self> {
        let of_text: Vec<u32> = {
            let last = tokens.iter().rev().filter(|&&token| !tokenizer.is_special(token));
            let mut last: Vec<u32> = last.take(BEFORE[BEFORE.len() - 1]).copied().collect();
            last.reverse();
            last
        };
        let mut stream = Self::new(tokenizer);
        for len in BEFORE {
            stream.tokens = of_text[of_text.len().saturating_sub(len)..].to_vec();
            stream.told = tokenizer.decode(&stream.tokens)?;
            // The beginning must not lie within a character.
            if !stream.told.is_empty() && !stream.told.starts_with(char::REPLACEMENT_CHARACTER) {
                break;
            }
        }
        stream.whole = stream.tokens.len();
        Ok(stream)
    }

    /// The text that a token adds; empty while a character is incomplete.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`](super::LmError::Tokenizer).
    pub fn push(&mut self, token: u32) -> LmResult<String> {
        if self.tokenizer.is_special(token) {
            return Ok(String::new());
        }
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens)?;
        let pending = self.tokens.len() - self.whole;
        let is_whole = !text.ends_with(char::REPLACEMENT_CHARACTER) || pending > MOST_PENDING;
        let sure = if is_whole { text.as_str() } else { text.trim_end_matches(char::REPLACEMENT_CHARACTER) };
        let new = match sure.strip_prefix(&self.told) {
            Some(new) => new.to_owned(),
            None if is_whole => self.alone()?,
            None => return Ok(String::new()),
        };
        if is_whole {
            self.shorten(text)?;
        } else {
            self.told.push_str(&new);
        }
        Ok(new)
    }

    /// The remaining text at the end: an incomplete character, as U+FFFD.
    ///
    /// # Errors
    /// [`LmError::Tokenizer`](super::LmError::Tokenizer).
    pub fn finish(self) -> LmResult<String> {
        if self.tokens.len() == self.whole {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.tokens)?;
        match text.strip_prefix(&self.told) {
            Some(rest) => Ok(rest.to_owned()),
            None => self.alone(),
        }
    }

    /// The text after the last complete piece, if that piece reads differently with the later tokens behind it.
    fn alone(&self) -> LmResult<String> {
        self.tokenizer.decode(&self.tokens[self.whole..])
    }

    /// Replaces the last complete piece by the piece that has just become complete; `text` is the text of both.
    fn shorten(&mut self, text: String) -> LmResult<()> {
        let last = self.tokenizer.decode(&self.tokens[self.whole..])?;
        if last.is_empty() && self.tokens.len() < BEFORE[BEFORE.len() - 1] {
            // A space that shows only before a word: the next token needs the tokens before it.
            self.told = text;
            return Ok(());
        }
        self.tokens.drain(..self.whole);
        self.whole = self.tokens.len();
        self.told = last;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each token a few tokens are decoded again, with or without line breaks.
    #[test]
    fn a_stream_keeps_few_tokens() {
        let text = include_str!("../../examples/llm/model/tokenizer.json");
        let tokenizer = TextTokenizer::from_json(text).unwrap();
        let sentences = ["no line ends here, ", "é", "🦀", " ", "\n", "\u{fffd}a"];
        for sentence in sentences {
            let tokens = tokenizer.encode(&sentence.repeat(300)).unwrap();
            let mut stream = TextStream::new(&tokenizer);
            for token in tokens {
                stream.push(token).unwrap();
                assert!(stream.tokens.len() <= 2 * (MOST_PENDING + 1), "{sentence:?}: {}", stream.tokens.len());
            }
            assert_eq!(stream.finish().unwrap(), "", "{sentence:?}");
        }
    }
}
