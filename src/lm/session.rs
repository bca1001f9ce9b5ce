//! A model that reads and writes.

use core::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cpu::{CpuRunner, sample_token};
use super::error::{LmError, LmResult};
use super::gpu::GpuRunner;
use super::model::Model;
use super::options::{ChunkLists, Sampling, SessionOptions};
use crate::Engine;
use crate::quality::MassReport;

#[derive(Debug)]
enum Runner {
    Gpu(Box<GpuRunner>),
    Cpu {
        runner: Box<CpuRunner>,
        /// Of the last token.
        logits: Vec<f32>,
    },
}

/// Why [`Session::generate`] came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All tokens that were asked for are there.
    Count,
    /// The model ended the text.
    EndOfText,
    /// The caller had enough.
    Caller,
    /// The text is as long as [`SessionOptions::with_text_len`] lets it be.
    TextLength,
}

/// A model with its cache of keys and values: it reads tokens, tells how likely they were, and writes on.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    options: SessionOptions,
    runner: Runner,
    tokens: Vec<u32>,
    /// The logits at hand are those of another token than the last.
    stale: bool,
}

impl Session {
    /// A session on a GPU or on the CPU, as the engine says.
    ///
    /// # Errors
    /// [`LmError::Option`]; [`LmError::Attention`] where a layer's attention breaks a rule or the device's limits.
    ///
    /// # Cost
    /// Uploads the weights, compiles the kernels, allocates the cache: `8 * capacity * num_kv_heads * head_dim` bytes a
    /// layer.
    pub fn new(model: &Arc<Model>, engine: &Engine, options: &SessionOptions) -> LmResult<Self> {
        options.validate(model.config())?;
        let mut options = options.clone();
        if let Some(ctx) = engine.context() {
            options.chunk = options.chunk.min(GpuRunner::most_tokens(ctx.caps(), model.config()));
        }
        let runner = match engine.context() {
            Some(ctx) => Runner::Gpu(Box::new(GpuRunner::new(ctx, model, &options)?)),
            None => Runner::Cpu { runner: Box::new(CpuRunner::new(model, &options)?), logits: Vec::new() },
        };
        Ok(Self { model: Arc::clone(model), options, runner, tokens: Vec::new(), stale: false })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Everything read and written so far.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Forgets all tokens but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            self.tokens.truncate(len);
            self.stale = true;
            self.restart();
        }
    }

    fn restart(&mut self) {
        match &mut self.runner {
            Runner::Gpu(runner) => runner.restart(),
            Runner::Cpu { runner, .. } => runner.restart(),
        }
    }

    fn check(&self, tokens: &[u32]) -> LmResult<()> {
        let vocab_size = self.model.config().vocab_size;
        if let Some(&token) = tokens.iter().find(|&&token| token >= vocab_size) {
            return Err(LmError::Token { token, vocab_size });
        }
        let (needed, text_len) = ((self.tokens.len() + tokens.len()) as u64, self.options.text_len);
        if needed > text_len.into() {
            return Err(LmError::TextLength { needed, text_len });
        }
        self.check_room(tokens.len())
    }

    fn check_room(&self, more: usize) -> LmResult<()> {
        let (needed, capacity) = ((self.tokens.len() + more) as u64, self.options.capacity);
        if needed > capacity.into() { Err(LmError::Capacity { needed, capacity }) } else { Ok(()) }
    }

    /// Reads tokens, chunk by chunk.
    ///
    /// # Errors
    /// [`LmError::Token`], [`LmError::TextLength`], [`LmError::Capacity`], before anything is read; those of the device.
    ///
    /// # Cost
    /// On the GPU one submission a chunk, and no wait. The first chunk of a length binds it.
    pub fn read(&mut self, tokens: &[u32]) -> LmResult<()> {
        self.read_with(tokens, |_| ())
    }

    /// [`Session::read`], telling after each chunk how many tokens are read. On the GPU it waits for the chunk to say so.
    ///
    /// # Errors
    /// Those of [`Session::read`].
    pub fn read_with(&mut self, tokens: &[u32], mut progress: impl FnMut(usize)) -> LmResult<()> {
        self.check(tokens)?;
        self.restart();
        let mut done = 0;
        for chunk in tokens.chunks(self.options.chunk as usize) {
            let at = self.tokens.len() as u32; // within the capacity
            match &mut self.runner {
                Runner::Gpu(runner) => {
                    runner.read(chunk, at)?;
                    if tokens.len() > chunk.len() {
                        runner.finish()?;
                    }
                }
                Runner::Cpu { runner, logits } => *logits = runner.forward(chunk, at, false)?,
            }
            self.tokens.extend_from_slice(chunk);
            self.stale = false;
            done += chunk.len();
            progress(done);
        }
        Ok(())
    }

    /// The logits after the last token.
    ///
    /// # Errors
    /// [`LmError::Option`] when nothing was read; those of the device.
    ///
    /// # Cost
    /// Reads them back and waits.
    pub fn logits(&mut self) -> LmResult<Vec<f32>> {
        self.refresh()?;
        match &self.runner {
            Runner::Gpu(runner) => runner.logits(),
            Runner::Cpu { logits, .. } => Ok(logits.clone()),
        }
    }

    /// Makes sure that the logits at hand are those of the last token.
    fn refresh(&mut self) -> LmResult<()> {
        let Some(&last) = self.tokens.last() else {
            let rule = "a model needs a token to go on from; begin with the one that begins a text";
            return Err(LmError::Option { option: "tokens", value: "none".to_owned(), rule });
        };
        if self.stale {
            self.tokens.pop();
            self.read(&[last])?;
        }
        Ok(())
    }

    /// Reads tokens and gives the logits after each, `[tokens, vocab_size]`.
    ///
    /// # Errors
    /// Those of [`Session::read`].
    ///
    /// # Cost
    /// Reads back and waits, once for each piece of a chunk that gives 64 MiB of logits.
    pub fn read_logits(&mut self, tokens: &[u32]) -> LmResult<Vec<f32>> {
        let mut all = Vec::with_capacity(tokens.len() * self.model.config().vocab_size as usize);
        self.read_rows(tokens, |_, logits| all.extend_from_slice(logits))?;
        Ok(all)
    }

    fn read_rows(&mut self, tokens: &[u32], mut row: impl FnMut(usize, &[f32])) -> LmResult<()> {
        self.check(tokens)?;
        self.restart();
        let vocab_size = self.model.config().vocab_size as usize;
        let piece = match &self.runner {
            Runner::Gpu(runner) => runner.most_logits(),
            Runner::Cpu { .. } => self.options.chunk,
        };
        let mut done = 0;
        for chunk in tokens.chunks(piece as usize) {
            let at = self.tokens.len() as u32; // within the capacity
            let rows = match &mut self.runner {
                Runner::Gpu(runner) => runner.read_all(chunk, at)?,
                Runner::Cpu { runner, logits } => {
                    let rows = runner.forward(chunk, at, true)?;
                    *logits = rows[rows.len() - vocab_size..].to_vec();
                    rows
                }
            };
            self.tokens.extend_from_slice(chunk);
            self.stale = false;
            rows.chunks_exact(vocab_size).enumerate().for_each(|(index, logits)| row(done + index, logits));
            done += chunk.len();
        }
        Ok(())
    }

    /// Reads tokens and gives the negative log-likelihood, in nats, of each but the first.
    ///
    /// # Errors
    /// Those of [`Session::read`].
    ///
    /// # Cost
    /// That of [`Session::read_logits`], without holding them all.
    pub fn score(&mut self, tokens: &[u32]) -> LmResult<Vec<f64>> {
        let mut nats = Vec::with_capacity(tokens.len());
        self.read_rows(tokens, |index, logits| {
            if let Some(&next) = tokens.get(index + 1) {
                nats.push(negative_log_likelihood(logits, next));
            }
        })?;
        Ok(nats)
    }

    /// Draws tokens and reads each of them, until there are `count`, the model ends the text, the text is as long as it may be, or the
    /// caller breaks. The caller hears of each token as soon as it is known; one that ends the text is not told.
    ///
    /// # Errors
    /// [`LmError::Option`], [`LmError::Capacity`], before the first token; those of the device.
    ///
    /// # Cost
    /// On the GPU one submission a token, two of them under way at a time.
    pub fn generate(
        &mut self,
        count: usize,
        sampling: &Sampling,
        mut told: impl FnMut(u32) -> ControlFlow<()>,
    ) -> LmResult<Stop> {
        sampling.validate()?;
        let room = (self.options.text_len as usize).saturating_sub(self.tokens.len());
        let (count, full) = if count > room { (room, Stop::TextLength) } else { (count, Stop::Count) };
        self.check_room(count)?;
        self.refresh()?;
        self.restart();
        let ends = self.model.config().eos_tokens.clone();
        let mut take = |tokens: &mut Vec<u32>, token: u32| {
            if ends.contains(&token) {
                return Some(Stop::EndOfText);
            }
            tokens.push(token);
            told(token).is_break().then_some(Stop::Caller)
        };
        let begin = self.tokens.len() as u32; // within the capacity
        match &mut self.runner {
            Runner::Cpu { runner, logits } => {
                for _ in 0..count {
                    let token = sample_token(logits, sampling, self.tokens.len() as u32);
                    if let Some(stop) = take(&mut self.tokens, token) {
                        self.stale = self.tokens.last() == Some(&token);
                        return Ok(stop);
                    }
                    *logits = runner.forward(&[token], self.tokens.len() as u32 - 1, false)?;
                }
            }
            Runner::Gpu(runner) => {
                runner.begin(sampling, begin)?;
                let mut pending = std::collections::VecDeque::new();
                let mut submitted = 0;
                while submitted < count || !pending.is_empty() {
                    while submitted < count && pending.len() < 2 {
                        pending.push_back(runner.next(begin + submitted as u32)?);
                        submitted += 1;
                    }
                    let Some(next) = pending.pop_front() else { break };
                    let token = runner.wait(next)?;
                    if let Some(stop) = take(&mut self.tokens, token) {
                        // What was submitted ahead has moved the state on.
                        self.stale = true;
                        return Ok(stop);
                    }
                }
            }
        }
        Ok(full)
    }

    /// Time that attention took so far, selection included; `None` on a GPU, where [`Session::time`] tells.
    #[must_use]
    pub fn attention_time(&self) -> Option<Duration> {
        match &self.runner {
            Runner::Cpu { runner, .. } => Some(runner.attention_time),
            Runner::Gpu(_) => None,
        }
    }

    /// Times a forward pass of so many tokens at the end of what was read, and how much of it attention takes, selection
    /// included; the best of `runs`. The cache is as before.
    ///
    /// # Errors
    /// [`LmError::Capacity`] when fewer were read; those of the device.
    ///
    /// # Cost
    /// Runs the model `2 * runs` times on the GPU, `runs` times on the CPU, and waits.
    pub fn time(&mut self, tokens: u32, runs: u32) -> LmResult<(Duration, Duration)> {
        let len = self.tokens.len() as u32;
        if tokens == 0 || tokens > len {
            return Err(LmError::Capacity { needed: tokens.into(), capacity: len });
        }
        let part = self.tokens[(len - tokens) as usize..].to_vec();
        let mut best = (Duration::MAX, Duration::MAX);
        for _ in 0..runs.max(1) {
            let begin = Instant::now();
            let attention = match &mut self.runner {
                Runner::Gpu(runner) => {
                    runner.rerun(tokens, len, false)?;
                    let without = begin.elapsed();
                    let begin = Instant::now();
                    runner.rerun(tokens, len, true)?;
                    let all = begin.elapsed();
                    best.0 = best.0.min(all);
                    all.saturating_sub(without)
                }
                Runner::Cpu { runner, logits } => {
                    runner.restart();
                    let before = runner.attention_time;
                    *logits = runner.forward(&part, len - tokens, false)?;
                    best.0 = best.0.min(begin.elapsed());
                    runner.attention_time - before
                }
            };
            best.1 = best.1.min(attention);
        }
        // Without attention the cache got garbage; this writes it anew.
        self.tokens.truncate((len - tokens) as usize);
        self.read(&part)?;
        Ok(best)
    }

    /// The lists of a layer for the last chunk that was read; `None` where the layer is dense.
    ///
    /// # Errors
    /// Those of the device.
    ///
    /// # Panics
    /// When there is no such layer.
    ///
    /// # Cost
    /// On the GPU reads them back and waits.
    pub fn lists(&self, layer: u32) -> LmResult<Option<ChunkLists>> {
        match &self.runner {
            Runner::Gpu(runner) => runner.lists(layer as usize),
            Runner::Cpu { runner, .. } => Ok(runner.lists(layer as usize)),
        }
    }

    /// From now on computes dense attention beside sparse, for [`Session::mass`]. On the CPU only.
    ///
    /// # Errors
    /// [`LmError::Option`] on a GPU.
    pub fn measure_mass(&mut self) -> LmResult<()> {
        match &mut self.runner {
            Runner::Cpu { runner, .. } => {
                runner.measure_mass = true;
                Ok(())
            }
            Runner::Gpu(_) => Err(no_mass_on_a_gpu()),
        }
    }

    /// The share of softmax mass that sparse attention captured, by layer.
    ///
    /// # Errors
    /// [`LmError::Option`] on a GPU.
    pub fn mass(&self) -> LmResult<MassReport> {
        match &self.runner {
            Runner::Cpu { runner, .. } => runner.mass(),
            Runner::Gpu(_) => Err(no_mass_on_a_gpu()),
        }
    }
}

fn no_mass_on_a_gpu() -> LmError {
    let rule = "captured mass is measured on the CPU";
    LmError::Option { option: "engine", value: "GPU".to_owned(), rule }
}

/// `log(sum(exp(logits))) - logits[token]`.
fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - best).exp()).sum();
    sum.ln() + f64::from(best) - f64::from(logits[token as usize])
}
