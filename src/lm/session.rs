//! A model that reads and writes.

use core::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::cpu::CpuRunner;
use super::error::{LmError, LmResult};
use super::gpu::GpuRunner;
use super::model::Model;
use super::options::{ChunkLists, Sampling, SessionOptions};
use super::runner::{OnCpu, Runner, Stop};
use crate::Engine;
use crate::quality::MassReport;

/// A model with its cache of keys and values: it reads tokens, computes their likelihood, and writes further tokens.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    options: SessionOptions,
    runner: Box<dyn Runner>,
    tokens: Vec<u32>,
    /// Whether the present logits belong to another token than the last.
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
        let runner: Box<dyn Runner> = match engine {
            Engine::Gpu(ctx) => Box::new(GpuRunner::new(ctx, model, &options)?),
            Engine::Cpu { .. } => {
                Box::new(OnCpu::new(CpuRunner::new(model, &options)?, model.config().vocab_size as usize))
            }
            Engine::Oracle => {
                let rule = "must be a GPU or the CPU: models have no oracle";
                return Err(LmError::Option { option: "engine", value: engine.to_string(), rule });
            }
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
            self.runner.restart();
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
    /// [`LmError::Token`], [`LmError::TextLength`], [`LmError::Capacity`], before anything is read; errors of the device.
    ///
    /// # Cost
    /// On the GPU one submission a chunk, and no wait. The first chunk of a length binds it.
    pub fn read(&mut self, tokens: &[u32]) -> LmResult<()> {
        self.read_with(tokens, |_| ())
    }

    /// [`Session::read`], with a report of the tokens read after each chunk. On the GPU it waits for each chunk.
    ///
    /// # Errors
    /// The errors of [`Session::read`].
    pub fn read_with(&mut self, tokens: &[u32], mut progress: impl FnMut(usize)) -> LmResult<()> {
        self.check(tokens)?;
        self.runner.restart();
        let mut done = 0;
        for chunk in tokens.chunks(self.options.chunk as usize) {
            let at = self.tokens.len() as u32; // within the capacity
            self.runner.read(chunk, at)?;
            if tokens.len() > chunk.len() {
                self.runner.finish()?;
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
    /// [`LmError::Option`] when nothing was read; errors of the device.
    ///
    /// # Cost
    /// Reads them back and waits.
    pub fn logits(&mut self) -> LmResult<Vec<f32>> {
        self.refresh()?;
        self.runner.logits()
    }

    /// Makes sure that the present logits belong to the last token.
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
    /// The errors of [`Session::read`].
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
        self.runner.restart();
        let vocab_size = self.model.config().vocab_size as usize;
        let piece = self.runner.most_logits().unwrap_or(self.options.chunk);
        let mut done = 0;
        for chunk in tokens.chunks(piece as usize) {
            let at = self.tokens.len() as u32; // within the capacity
            let rows = self.runner.read_all(chunk, at)?;
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
    /// The errors of [`Session::read`].
    ///
    /// # Cost
    /// The cost of [`Session::read_logits`], without holding them all.
    pub fn score(&mut self, tokens: &[u32]) -> LmResult<Vec<f64>> {
        let mut nats = Vec::with_capacity(tokens.len());
        self.read_rows(tokens, |index, logits| {
            if let Some(&next) = tokens.get(index + 1) {
                nats.push(negative_log_likelihood(logits, next));
            }
        })?;
        Ok(nats)
    }

    /// Draws tokens and reads each of them, until there are `count`, the model ends the text, the text reaches its limit, or the caller
    /// breaks. The caller gets each token as soon as it is known, except a token that ends the text.
    ///
    /// # Errors
    /// [`LmError::Option`], [`LmError::Capacity`], before the first token; errors of the device.
    ///
    /// # Cost
    /// On the GPU one submission a token, two of them in flight at a time.
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
        self.runner.restart();
        let ends = self.model.config().eos_tokens.clone();
        let begin = self.tokens.len() as u32; // within the capacity
        let tokens = &mut self.tokens;
        let mut take = |token: u32| {
            if ends.contains(&token) {
                return Some(Stop::EndOfText);
            }
            tokens.push(token);
            told(token).is_break().then_some(Stop::Caller)
        };
        Ok(match self.runner.generate(sampling, begin, count, &mut take)? {
            Some(stopped) => {
                self.stale = stopped.stale;
                stopped.stop
            }
            None => full,
        })
    }

    /// Time that attention took so far, selection included; `None` on a GPU, where [`Session::time`] measures it.
    #[must_use]
    pub fn attention_time(&self) -> Option<Duration> {
        self.runner.attention_time()
    }

    /// Times a forward pass of the last `tokens` tokens read, and attention's part of it, selection included; the best of `runs`. The cache
    /// is restored.
    ///
    /// # Errors
    /// [`LmError::Capacity`] when fewer were read; errors of the device.
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
            let (all, attention) = self.runner.time(&part, len)?;
            best = (best.0.min(all), best.1.min(attention));
        }
        // The pass without attention filled the cache with garbage; this one restores it.
        self.tokens.truncate((len - tokens) as usize);
        self.read(&part)?;
        Ok(best)
    }

    /// The lists of a layer for the last chunk that was read; `None` where the layer is dense.
    ///
    /// # Errors
    /// The errors of the device.
    ///
    /// # Panics
    /// When there is no such layer.
    ///
    /// # Cost
    /// On the GPU reads them back and waits.
    pub fn lists(&self, layer: u32) -> LmResult<Option<ChunkLists>> {
        self.runner.lists(layer as usize)
    }

    /// Computes dense attention besides sparse from now on, for [`Session::mass`]. On the CPU only.
    ///
    /// # Errors
    /// [`LmError::Option`] on a GPU.
    pub fn measure_mass(&mut self) -> LmResult<()> {
        self.runner.measure_mass()
    }

    /// The share of softmax mass that sparse attention captured, by layer.
    ///
    /// # Errors
    /// [`LmError::Option`] on a GPU.
    pub fn mass(&self) -> LmResult<MassReport> {
        self.runner.mass()
    }
}

/// `log(sum(exp(logits))) - logits[token]`.
fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - best).exp()).sum();
    sum.ln() + f64::from(best) - f64::from(logits[token as usize])
}
