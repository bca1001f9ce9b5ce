//! The trait that runs a model, on a GPU or on the CPU, for a session.

use std::time::{Duration, Instant};

use super::cpu::{CpuRunner, sample_token};
use super::error::LmResult;
use super::options::{ChunkLists, Sampling};
use crate::quality::MassReport;

/// The reason why [`Session::generate`](super::Session::generate) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It wrote the requested number of tokens.
    Count,
    /// The model ended the text.
    EndOfText,
    /// The caller stopped it.
    Caller,
    /// The text has reached the length of [`SessionOptions::with_text_len`](super::SessionOptions::with_text_len).
    TextLength,
}

/// The reason why a run of drawn tokens ended early, and whether the present logits belong to another token than the last.
pub(super) struct Stopped {
    pub(super) stop: Stop,
    pub(super) stale: bool,
}

/// A model and its cache. `at` is the number of valid tokens in the cache.
pub(super) trait Runner: core::fmt::Debug + Send + Sync {
    /// Forgets the lists of earlier steps.
    fn restart(&mut self);
    /// Reads a chunk; the logits of its last token are kept.
    fn read(&mut self, tokens: &[u32], at: u32) -> LmResult<()>;
    /// Waits until all chunks have been computed.
    fn finish(&self) -> LmResult<()>;
    /// Number of tokens for which [`read_all`](Self::read_all) gives logits at a time; `None`: a whole chunk.
    fn most_logits(&self) -> Option<u32>;
    /// Reads a chunk and gives the logits of each of its tokens.
    fn read_all(&mut self, tokens: &[u32], at: u32) -> LmResult<Vec<f32>>;
    /// The logits of the last chunk's last token.
    fn logits(&self) -> LmResult<Vec<f32>>;
    /// Draws `count` tokens and reads each, unless `take` stops it.
    fn generate(
        &mut self,
        sampling: &Sampling,
        at: u32,
        count: usize,
        take: &mut dyn FnMut(u32) -> Option<Stop>,
    ) -> LmResult<Option<Stopped>>;
    /// Time that attention took so far; `None` where [`time`](Self::time) measures it.
    fn attention_time(&self) -> Option<Duration>;
    /// Times a pass of the last tokens of `len`, and attention in it. Their cache entries may be garbage afterwards.
    fn time(&mut self, tokens: &[u32], len: u32) -> LmResult<(Duration, Duration)>;
    /// The lists of a layer for the last chunk.
    fn lists(&self, layer: usize) -> LmResult<Option<ChunkLists>>;
    /// Measures captured mass from now on.
    fn measure_mass(&mut self) -> LmResult<()>;
    /// The captured mass.
    fn mass(&self) -> LmResult<MassReport>;
}

/// A model on the CPU.
#[derive(Debug)]
pub(super) struct OnCpu {
    runner: CpuRunner,
    vocab_size: usize,
    /// The logits of the last token.
    logits: Vec<f32>,
}

impl OnCpu {
    pub(super) const fn new(runner: CpuRunner, vocab_size: usize) -> Self {
        Self { runner, vocab_size, logits: Vec::new() }
    }
}

impl Runner for OnCpu {
    fn restart(&mut self) {
        self.runner.restart();
    }

    fn read(&mut self, tokens: &[u32], at: u32) -> LmResult<()> {
        self.logits = self.runner.forward(tokens, at, false)?;
        Ok(())
    }

    fn finish(&self) -> LmResult<()> {
        Ok(())
    }

    fn most_logits(&self) -> Option<u32> {
        None
    }

    fn read_all(&mut self, tokens: &[u32], at: u32) -> LmResult<Vec<f32>> {
        let rows = self.runner.forward(tokens, at, true)?;
        self.logits = rows[rows.len() - self.vocab_size..].to_vec();
        Ok(rows)
    }

    fn logits(&self) -> LmResult<Vec<f32>> {
        Ok(self.logits.clone())
    }

    fn generate(
        &mut self,
        sampling: &Sampling,
        at: u32,
        count: usize,
        take: &mut dyn FnMut(u32) -> Option<Stop>,
    ) -> LmResult<Option<Stopped>> {
        for at in (at..).take(count) {
            let token = sample_token(&self.logits, sampling, at);
            if let Some(stop) = take(token) {
                // A token that ends the text is not part of it; a token at which the caller stopped was not read.
                return Ok(Some(Stopped { stop, stale: stop != Stop::EndOfText }));
            }
            self.logits = self.runner.forward(&[token], at, false)?;
        }
        Ok(None)
    }

    fn attention_time(&self) -> Option<Duration> {
        Some(self.runner.attention_time)
    }

    fn time(&mut self, tokens: &[u32], len: u32) -> LmResult<(Duration, Duration)> {
        let begin = Instant::now();
        self.runner.restart();
        let before = self.runner.attention_time;
        self.logits = self.runner.forward(tokens, len - tokens.len() as u32, false)?;
        Ok((begin.elapsed(), self.runner.attention_time - before))
    }

    fn lists(&self, layer: usize) -> LmResult<Option<ChunkLists>> {
        Ok(self.runner.lists(layer))
    }

    fn measure_mass(&mut self) -> LmResult<()> {
        self.runner.measure_mass = true;
        Ok(())
    }

    fn mass(&self) -> LmResult<MassReport> {
        self.runner.mass()
    }
}
