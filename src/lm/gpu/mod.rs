//! The model on the GPU: one submission for each chunk of a prompt and for each token after it.

mod chunk;
mod memory;
mod step;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chunk::{Binder, Chunk, Shared};
use futures::channel::oneshot;
use memory::{GpuWeights, buffer};
use step::Pipelines;

use super::config::LmConfig;
use super::error::{LmError, LmResult};
use super::kernels::sample_token::SampleParams;
use super::kernels::{self, LmVariant};
use super::model::Model;
use super::options::{ChunkLists, Sampling, SessionOptions};
use super::runner::{Runner, Stop, Stopped};
use crate::quality::MassReport;
use crate::{Context, DType, DeviceCaps, Error, HostBlockLists, Layout, Slots, Step, TensorView};

/// Limit on the bytes of logits that a call for all logits reads back at once.
const LOGITS_BYTES: u64 = 64 << 20;

/// A model and the tokens that it has read.
#[derive(Debug)]
pub(crate) struct GpuRunner {
    model: Arc<Model>,
    options: SessionOptions,
    pipelines: Pipelines,
    weights: GpuWeights,
    shared: Shared,
    /// By number of tokens: whole chunks, single tokens, and the last remainder.
    chunks: HashMap<u32, Chunk>,
    sample: Step,
    sample_params: wgpu::Buffer,
    /// Tokens decoded since the last prompt.
    step: u64,
    /// Number of tokens of the last chunk, and where it began.
    last: (u32, u32),
}

/// A token on its way back.
#[derive(Debug)]
struct PendingToken {
    staging: wgpu::Buffer,
    mapped: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
    submission: wgpu::SubmissionIndex,
}

impl GpuRunner {
    pub(crate) fn new(ctx: &Context, model: &Arc<Model>, options: &SessionOptions) -> LmResult<Self> {
        let config = model.config();
        let shared = Shared {
            state: buffer(ctx, "wattn.lm.state", 2)?,
            tokens: buffer(ctx, "wattn.lm.tokens", options.chunk.into())?,
            logits: buffer(ctx, "wattn.lm.logits", config.vocab_size.into())?,
            nothing: buffer(ctx, "wattn.lm.nothing", 4)?,
        };
        let weights = GpuWeights::new(ctx, config, model.weights(), options)?;
        let pipelines = Pipelines::new(ctx);
        let sample_params = pipelines.uniform(bytemuck::bytes_of(&SampleParams::default()))?;
        let slots = Slots::new()
            .buffer("params", &sample_params)
            .buffer("logits", &shared.logits)
            .buffer("state", &shared.state)
            .buffer("tokens", &shared.tokens);
        let sample = pipelines.step(&kernels::SAMPLE_TOKEN, &slots, [1, 1, 1])?;
        let mut runner = Self {
            model: Arc::clone(model),
            options: options.clone(),
            pipelines,
            weights,
            shared,
            chunks: HashMap::new(),
            sample,
            sample_params,
            step: 0,
            last: (1, 0),
        };
        // Problems that cannot be bound are reported before the first token.
        runner.chunk(1)?;
        runner.chunk(options.chunk.min(options.capacity))?;
        Ok(runner)
    }

    /// Most tokens of a chunk whose activations fit one buffer each.
    pub(crate) fn most_tokens(caps: &DeviceCaps, config: &LmConfig) -> u32 {
        let widest =
            [config.hidden_size, config.qkv_size(), 2 * config.intermediate_size].into_iter().fold(1, u32::max);
        let words = caps.max_storage_binding_bytes.min(caps.max_buffer_bytes) / 4;
        u32::try_from(words / u64::from(widest)).unwrap_or(u32::MAX).max(1)
    }

    fn ctx(&self) -> Context {
        self.pipelines.context().clone()
    }

    /// The bound dispatches of a chunk of this many tokens; full chunks and single tokens stay cached, of other sizes only the latest.
    fn chunk(&mut self, tokens: u32) -> LmResult<&Chunk> {
        if !self.chunks.contains_key(&tokens) {
            let kept = [1, self.options.chunk.min(self.options.capacity)];
            self.chunks.retain(|tokens, _| kept.contains(tokens));
            let chunk = self.binder().chunk(tokens)?;
            self.chunks.insert(tokens, chunk);
        }
        Ok(&self.chunks[&tokens])
    }

    fn binder(&self) -> Binder<'_> {
        Binder {
            pipelines: &self.pipelines,
            config: self.model.config(),
            options: &self.options,
            weights: &self.weights,
            shared: &self.shared,
        }
    }

    fn submit(&mut self, tokens: &[u32], at: u32, more: &[Step]) -> LmResult<()> {
        let ctx = self.ctx();
        let count = tokens.len() as u32; // a chunk
        let step = if count == 1 { self.step } else { 0 };
        self.chunk(count)?;
        let chunk = &self.chunks[&count];
        let shared = &self.shared;
        ctx.scoped("running a model", || -> LmResult<()> {
            let queue = ctx.queue();
            queue.write_buffer(&shared.state, 0, bytemuck::cast_slice(&[at + count, at]));
            queue.write_buffer(&shared.tokens, 0, bytemuck::cast_slice(tokens));
            chunk.write_lists(queue, at)?;
            let mut encoder = encoder(&ctx);
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                chunk.encode(&mut pass, step, true);
                more.iter().for_each(|step| step.encode_in(&mut pass));
            }
            queue.submit([encoder.finish()]);
            Ok(())
        })??;
        self.step = if count == 1 { step + 1 } else { 0 };
        self.last = (count, at);
        Ok(())
    }

    /// Buffer for logits of this many tokens.
    fn download_logits(&self, buffer: &wgpu::Buffer, tokens: u32) -> LmResult<Vec<f32>> {
        self.download(buffer, tokens * self.model.config().vocab_size)
    }

    fn download(&self, buffer: &wgpu::Buffer, len: u32) -> LmResult<Vec<f32>> {
        let view = TensorView::new(buffer, DType::F32, Layout::seq_major(1, 1, 1, len));
        Ok(self.ctx().read::<f32>(view).wait()?.into_data())
    }

    /// Prepares for tokens to be drawn one after another, after `len` tokens.
    fn begin(&mut self, sampling: &Sampling, len: u32) -> LmResult<()> {
        let config = self.model.config();
        let params = SampleParams {
            vocab_size: config.vocab_size,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            temperature: sampling.temperature,
            seed: sampling.seed,
        };
        let ctx = self.ctx();
        ctx.scoped("running a model", || {
            ctx.queue().write_buffer(&self.sample_params, 0, bytemuck::bytes_of(&params));
            ctx.queue().write_buffer(&self.shared.state, 0, bytemuck::cast_slice(&[len, 0]));
        })?;
        Ok(())
    }

    /// Submits one token: it is drawn from the logits, read, and its own logits computed. `len` tokens were there before.
    fn next(&mut self, len: u32) -> LmResult<PendingToken> {
        let ctx = self.ctx();
        let (step, shared) = (self.step, &self.shared);
        let chunk = &self.chunks[&1];
        let pending = ctx.scoped("running a model", || -> LmResult<PendingToken> {
            let staging = ctx.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("wattn.lm.token"),
                size: 4,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            chunk.write_lists(ctx.queue(), len)?;
            let mut encoder = encoder(&ctx);
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                self.sample.encode_in(&mut pass);
                chunk.encode(&mut pass, step, true);
            }
            encoder.copy_buffer_to_buffer(&shared.tokens, 0, &staging, 0, 4);
            let submission = ctx.queue().submit([encoder.finish()]);
            let (sender, mapped) = oneshot::channel();
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                // The reader may have dropped its end.
                let _ = sender.send(result);
            });
            Ok(PendingToken { staging, mapped, submission })
        })??;
        self.step += 1;
        self.last = (1, len);
        Ok(pending)
    }

    /// Waits for a token.
    fn wait(&self, pending: PendingToken) -> LmResult<u32> {
        let lost = |message: String| Error::DeviceLost { message };
        let PendingToken { staging, mapped, submission } = pending;
        let poll = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
        self.ctx().device().poll(poll).map_err(Error::from)?;
        pollster::block_on(mapped)
            .map_err(|_| lost("a map was dropped unanswered".to_owned()))?
            .map_err(Error::from)?;
        let bytes = staging.get_mapped_range(..).map_err(|error| lost(error.to_string()))?;
        Ok(bytemuck::pod_read_unaligned(&bytes[..4]))
    }

    /// Computes the last chunk of this many tokens once more after `len - tokens` others, with or without attention, for timing only: without
    /// attention its results are garbage.
    fn rerun(&mut self, tokens: u32, len: u32, attention: bool) -> LmResult<()> {
        self.chunk(tokens)?;
        let ctx = self.ctx();
        let (chunk, state) = (&self.chunks[&tokens], &self.shared.state);
        ctx.scoped("running a model", || {
            ctx.queue().write_buffer(state, 0, bytemuck::cast_slice(&[len, len - tokens]));
            let mut encoder = encoder(&ctx);
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                chunk.encode(&mut pass, 0, attention);
            }
            ctx.queue().submit([encoder.finish()]);
        })?;
        self.finish()
    }
}

impl Runner for GpuRunner {
    fn restart(&mut self) {
        self.step = 0;
    }

    fn read(&mut self, tokens: &[u32], at: u32) -> LmResult<()> {
        self.submit(tokens, at, &[])
    }

    fn finish(&self) -> LmResult<()> {
        self.ctx().device().poll(wgpu::PollType::wait_indefinitely()).map_err(Error::from)?;
        Ok(())
    }

    fn most_logits(&self) -> Option<u32> {
        let row = u64::from(self.model.config().vocab_size) * 4;
        let bytes = LOGITS_BYTES.min(self.ctx().caps().max_storage_binding_bytes);
        Some(u32::try_from(bytes / row).unwrap_or(u32::MAX).clamp(1, self.options.chunk))
    }

    fn read_all(&mut self, tokens: &[u32], at: u32) -> LmResult<Vec<f32>> {
        let count = tokens.len() as u32; // at most most_logits()
        let words = u64::from(count) * u64::from(self.model.config().vocab_size);
        let logits = buffer(&self.ctx(), "wattn.lm.all_logits", words)?;
        self.chunk(count)?;
        let steps = self.binder().all_logits(&self.chunks[&count], &logits)?;
        self.submit(tokens, at, &steps)?;
        self.download_logits(&logits, count)
    }

    fn logits(&self) -> LmResult<Vec<f32>> {
        self.download_logits(&self.shared.logits, 1)
    }

    fn generate(
        &mut self,
        sampling: &Sampling,
        at: u32,
        count: usize,
        take: &mut dyn FnMut(u32) -> Option<Stop>,
    ) -> LmResult<Option<Stopped>> {
        self.begin(sampling, at)?;
        let mut pending = VecDeque::new();
        let mut submitted = 0;
        while submitted < count || !pending.is_empty() {
            while submitted < count && pending.len() < 2 {
                pending.push_back(self.next(at + submitted as u32)?);
                submitted += 1;
            }
            let Some(next) = pending.pop_front() else { break };
            let token = self.wait(next)?;
            if let Some(stop) = take(token) {
                // Submissions ahead of the last token have advanced the state.
                return Ok(Some(Stopped { stop, stale: true }));
            }
        }
        Ok(None)
    }

    fn attention_time(&self) -> Option<Duration> {
        None
    }

    fn time(&mut self, tokens: &[u32], len: u32) -> LmResult<(Duration, Duration)> {
        let count = tokens.len() as u32; // of `len`
        let begin = Instant::now();
        self.rerun(count, len, false)?;
        let without = begin.elapsed();
        let begin = Instant::now();
        self.rerun(count, len, true)?;
        let all = begin.elapsed();
        Ok((all, all.saturating_sub(without)))
    }

    fn lists(&self, layer: usize) -> LmResult<Option<ChunkLists>> {
        let (tokens, at) = self.last;
        let Some((problem, buffers)) = self.chunks.get(&tokens).and_then(|chunk| chunk.lists(layer)) else {
            return Ok(None);
        };
        let selection = problem.blocks();
        let mut words = Vec::with_capacity(2);
        for buffer in buffers {
            let floats = self.download(buffer, (buffer.size() / 4) as u32)?; // a binding has fewer than 2^32 words
            words.push(floats.into_iter().map(f32::to_bits).collect::<Vec<u32>>());
        }
        let (counts, indices) = (words.pop().unwrap_or_default(), words.pop().unwrap_or_default());
        let blocks = HostBlockLists::new(selection.indices_shape(problem.shape()), indices, counts)?;
        Ok(Some(ChunkLists { at, tokens, selection, blocks }))
    }

    fn measure_mass(&mut self) -> LmResult<()> {
        Err(no_mass_on_a_gpu())
    }

    fn mass(&self) -> LmResult<MassReport> {
        Err(no_mass_on_a_gpu())
    }
}

fn no_mass_on_a_gpu() -> LmError {
    let rule = "captured mass is measured on the CPU";
    LmError::Option { option: "engine", value: "GPU".to_owned(), rule }
}

fn encoder(ctx: &Context) -> wgpu::CommandEncoder {
    ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("wattn.lm") })
}

/// Submits one dispatch.
pub(super) fn run(
    ctx: &Context,
    variant: LmVariant,
    params: &[u8],
    buffers: &[&wgpu::Buffer],
    workgroups: [u32; 3],
) -> LmResult<()> {
    let storage = variant.kernel.bindings().iter().filter(|binding| binding.kind.is_storage());
    let slots = storage
        .zip(buffers)
        .fold(Slots::new().uniform("params", params), |slots, (binding, buffer)| slots.buffer(binding.name, buffer));
    let step = Pipelines::new(ctx).variant(variant, &slots, workgroups.map(u64::from))?;
    ctx.scoped("running a kernel", || {
        let mut encoder = encoder(ctx);
        step.encode_in(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        ctx.queue().submit([encoder.finish()]);
    })?;
    Ok(())
}
