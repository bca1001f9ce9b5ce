//! A chunk of tokens on its way through the model: bound once for each number of tokens, encoded often.

use super::memory::{GpuLayer, GpuLinear, GpuMatrix, GpuWeights, buffer};
use super::step::Pipelines;
use crate::lm::config::LmConfig;
use crate::lm::error::LmResult;
use crate::lm::kernels::embed_tokens::EmbedParams;
use crate::lm::kernels::gate_mlp::GateParams;
use crate::lm::kernels::project_token::ProjectParams;
use crate::lm::kernels::rms_norm::NormParams;
use crate::lm::kernels::rotate_heads::HeadParams;
use crate::lm::kernels::{self, LmVariant};
use crate::lm::options::{LayerAttention, ListSource, SessionOptions};
use crate::lm::problems::{LayerProblems, random_lists};
use crate::{
    Attention, AttentionArgs, AttentionPlan, BlockListSpec, BlockListsView, BoundAttention, BoundSelection, Context,
    DType, Layout, Selection, SelectionArgs, SelectionMemory, SelectionPlan, SelectionProblem, Slots, Step, TensorView,
    TensorViewMut, U32View, Workspace,
};

/// Buffers that all chunks share: the state, and the tokens.
#[derive(Debug)]
pub(in crate::lm) struct Shared {
    /// `[0]` number of tokens with this chunk; `[1]` position of the chunk's first token.
    pub(in crate::lm) state: wgpu::Buffer,
    pub(in crate::lm) tokens: wgpu::Buffer,
    /// The logits of the last token.
    pub(in crate::lm) logits: wgpu::Buffer,
    /// Stands in for tensors that a variant does not read.
    pub(in crate::lm) nothing: wgpu::Buffer,
}

/// A layer's lists, and the selection that writes them.
#[derive(Debug)]
struct Lists {
    problem: SelectionProblem,
    indices: wgpu::Buffer,
    counts: wgpu::Buffer,
    filled_by: Filler,
}

#[derive(Debug)]
enum Filler {
    Selection(BoundSelection),
    /// The host, with random blocks from this seed.
    Random(u64),
    /// No one: lists without blocks.
    Nobody,
}

#[derive(Debug)]
struct LayerSteps {
    before: Vec<Step>,
    lists: Option<Lists>,
    attend: BoundAttention,
    after: Vec<Step>,
}

/// The dispatches of a chunk of this many tokens.
#[derive(Debug)]
pub(in crate::lm) struct Chunk {
    pub(in crate::lm) tokens: u32,
    embed: Vec<Step>,
    layers: Vec<LayerSteps>,
    /// The dispatches from the last token to its logits.
    last: Vec<Step>,
    hidden: wgpu::Buffer,
    normed: wgpu::Buffer,
}

/// The arguments of binding.
pub(in crate::lm) struct Binder<'a> {
    pub(in crate::lm) pipelines: &'a Pipelines,
    pub(in crate::lm) config: &'a LmConfig,
    pub(in crate::lm) options: &'a SessionOptions,
    pub(in crate::lm) weights: &'a GpuWeights,
    pub(in crate::lm) shared: &'a Shared,
}

/// Memory of one chunk that its layers use in turn.
struct Scratch {
    qkv: wgpu::Buffer,
    q: wgpu::Buffer,
    heads: wgpu::Buffer,
    gate_up: wgpu::Buffer,
    gated: wgpu::Buffer,
    attention: Workspace,
    samples: Workspace,
    scores: Workspace,
}

/// Plans of one layer.
struct LayerPlans {
    attention: AttentionPlan,
    selection: Option<(SelectionPlan, ListSource)>,
}

impl Binder<'_> {
    fn ctx(&self) -> Context {
        self.pipelines.context().clone()
    }

    pub(in crate::lm) fn chunk(&self, tokens: u32) -> LmResult<Chunk> {
        let (ctx, config, weights) = (self.ctx(), self.config, self.weights);
        let words = |columns: u32| u64::from(tokens) * u64::from(columns);
        let hidden = buffer(&ctx, "wattn.lm.hidden", words(config.hidden_size))?;
        let normed = buffer(&ctx, "wattn.lm.normed", words(config.hidden_size))?;
        let plans = (0..weights.layers.len()).map(|layer| self.plans(layer, tokens)).collect::<LmResult<Vec<_>>>()?;
        let selections = || plans.iter().filter_map(|plans| plans.selection.as_ref()).map(|(plan, _)| plan);
        let largest = |bytes: &dyn Fn(&SelectionPlan) -> u64| selections().map(bytes).max().unwrap_or(0);
        let attention = plans.iter().map(|plans| plans.attention.workspace_bytes()).max().unwrap_or(0);
        let scratch = Scratch {
            qkv: buffer(&ctx, "wattn.lm.qkv", words(config.qkv_size()))?,
            q: buffer(&ctx, "wattn.lm.q", words(config.q_size()))?,
            heads: buffer(&ctx, "wattn.lm.heads", words(config.q_size()))?,
            gate_up: buffer(&ctx, "wattn.lm.gate_up", words(2 * config.intermediate_size))?,
            gated: buffer(&ctx, "wattn.lm.gated", words(config.intermediate_size))?,
            attention: Workspace::new(&ctx, attention)?,
            samples: Workspace::new(&ctx, largest(&SelectionPlan::samples_bytes))?,
            scores: Workspace::new(&ctx, largest(&SelectionPlan::scratch_bytes))?,
        };
        let embed = self.embed(tokens, &hidden)?;
        let layers = weights.layers.iter().zip(&plans);
        let layers = layers
            .map(|layer| self.layer(layer, tokens, [&hidden, &normed], &scratch))
            .collect::<LmResult<Vec<_>>>()?;
        let mut last = vec![self.norm([&hidden, &weights.norm, &normed], tokens - 1, 1)?];
        last.extend(self.project(&normed, weights.head(), None, &self.shared.logits, 1, false)?);
        Ok(Chunk { tokens, embed, layers, last, hidden, normed })
    }

    fn plans(&self, layer: usize, tokens: u32) -> LmResult<LayerPlans> {
        let problems = LayerProblems::new(self.config, self.options, layer, tokens)?;
        let ctx = self.ctx();
        Ok(match (problems.sparse, &self.options.attention[layer]) {
            (Some((selection, attention)), LayerAttention::Sparse { lists, .. }) => LayerPlans {
                attention: AttentionPlan::new(&attention, ctx.caps())?,
                selection: Some((SelectionPlan::new(&selection, ctx.caps())?, *lists)),
            },
            _ => LayerPlans { attention: AttentionPlan::new(&problems.dense, ctx.caps())?, selection: None },
        })
    }

    fn embed(&self, tokens: u32, hidden: &wgpu::Buffer) -> LmResult<Vec<Step>> {
        let GpuMatrix { elem, cols, ref parts, .. } = self.weights.embedding;
        let variant = LmVariant { elem, ..LmVariant::plain(&kernels::EMBED_TOKENS) };
        let ctx = self.ctx();
        let mut steps = Vec::with_capacity(parts.len());
        for part in parts {
            let (first_row, num_rows) = (part.first, part.count);
            let params = EmbedParams { num_tokens: tokens, width_vec4: cols / 4, first_row, num_rows };
            let slots = Slots::new()
                .uniform("params", bytemuck::bytes_of(&params))
                .buffer("tokens", &self.shared.tokens)
                .buffer("embedding", &part.buffer)
                .buffer("hidden", hidden);
            steps.push(self.pipelines.variant(variant, &slots, params.workgroups(ctx.caps()))?);
        }
        Ok(steps)
    }

    fn norm(&self, [x, weight, out]: [&wgpu::Buffer; 3], first_row: u32, num_rows: u32) -> LmResult<Step> {
        let width = self.config.hidden_size;
        let (eps, scale) = (self.config.rms_norm_eps, 1.0 / width as f32);
        let params = NormParams { width_vec4: width / 4, first_row, num_rows, eps, scale };
        let slots = Slots::new()
            .uniform("params", bytemuck::bytes_of(&params))
            .buffer("x", x)
            .buffer("weight", weight)
            .buffer("out", out);
        self.pipelines.step(&kernels::RMS_NORM, &slots, params.workgroups(self.ctx().caps()))
    }

    fn project(
        &self,
        x: &wgpu::Buffer,
        weight: &GpuMatrix,
        bias: Option<&wgpu::Buffer>,
        out: &wgpu::Buffer,
        tokens: u32,
        accumulate: bool,
    ) -> LmResult<Vec<Step>> {
        let kernel = if tokens == 1 { &kernels::PROJECT_TOKEN } else { &kernels::PROJECT_TOKENS };
        let variant = LmVariant { elem: weight.elem, ..LmVariant::plain(kernel) };
        let ctx = self.ctx();
        let mut steps = Vec::with_capacity(weight.parts.len());
        for part in &weight.parts {
            let params = ProjectParams {
                num_tokens: tokens,
                cols_vec4: weight.cols / 4,
                num_rows: part.count,
                first_row: part.first,
                all_rows: weight.rows,
                bias: bias.is_some().into(),
                accumulate: accumulate.into(),
            };
            let workgroups =
                if tokens == 1 { params.workgroups_of_one(ctx.caps()) } else { params.workgroups_of_many(ctx.caps()) };
            let slots = Slots::new()
                .uniform("params", bytemuck::bytes_of(&params))
                .buffer("x", x)
                .buffer("weight", &part.buffer)
                .buffer("bias", bias.unwrap_or(&self.shared.nothing))
                .buffer("out", out);
            steps.push(self.pipelines.variant(variant, &slots, workgroups)?);
        }
        Ok(steps)
    }

    fn linear(
        &self,
        x: &wgpu::Buffer,
        linear: &GpuLinear,
        out: &wgpu::Buffer,
        tokens: u32,
        accumulate: bool,
    ) -> LmResult<Vec<Step>> {
        self.project(x, &linear.weight, linear.bias.as_ref(), out, tokens, accumulate)
    }

    fn layer(
        &self,
        (layer, plans): (&GpuLayer, &LayerPlans),
        tokens: u32,
        [hidden, normed]: [&wgpu::Buffer; 2],
        scratch: &Scratch,
    ) -> LmResult<LayerSteps> {
        let config = self.config;
        let mut before = vec![self.norm([hidden, &layer.input_norm, normed], 0, tokens)?];
        before.extend(self.linear(normed, &layer.qkv, &scratch.qkv, tokens, false)?);
        let (num_q_heads, num_kv_heads) = (config.num_q_heads, config.num_kv_heads);
        let (head_dim, num_tokens, eps) = (config.head_dim, tokens, config.rms_norm_eps);
        let params = HeadParams { num_q_heads, num_kv_heads, head_dim, num_tokens, eps };
        let head = LmVariant { norm: layer.head_norms.is_some(), ..LmVariant::plain(&kernels::ROTATE_HEADS) };
        let norms = layer.head_norms.as_ref().unwrap_or(&self.shared.nothing);
        let slots = Slots::new()
            .uniform("params", bytemuck::bytes_of(&params))
            .buffer("state", &self.shared.state)
            .buffer("qkv", &scratch.qkv)
            .buffer("norms", norms)
            .buffer("angles", &self.weights.angles)
            .buffer("q", &scratch.q)
            .buffer("k", &layer.k)
            .buffer("v", &layer.v);
        let workgroups = params.workgroups(self.ctx().caps());
        before.push(self.pipelines.variant(head, &slots, workgroups)?);

        let (lists, attend) = self.attention(layer, plans, tokens, scratch)?;

        let mut after = self.linear(&scratch.heads, &layer.out, hidden, tokens, true)?;
        after.push(self.norm([hidden, &layer.mlp_norm, normed], 0, tokens)?);
        after.extend(self.linear(normed, &layer.gate_up, &scratch.gate_up, tokens, false)?);
        let params = GateParams { num_tokens: tokens, size_vec4: config.intermediate_size / 4 };
        let slots = Slots::new()
            .uniform("params", bytemuck::bytes_of(&params))
            .buffer("gate_up", &scratch.gate_up)
            .buffer("out", &scratch.gated);
        let workgroups = params.workgroups(self.ctx().caps());
        after.push(self.pipelines.step(&kernels::GATE_MLP, &slots, workgroups)?);
        after.extend(self.linear(&scratch.gated, &layer.down, hidden, tokens, true)?);
        Ok(LayerSteps { before, lists, attend, after })
    }

    fn attention(
        &self,
        layer: &GpuLayer,
        plans: &LayerPlans,
        tokens: u32,
        scratch: &Scratch,
    ) -> LmResult<(Option<Lists>, BoundAttention)> {
        let (ctx, config) = (self.ctx(), self.config);
        let (capacity, head_dim) = (self.options.capacity, config.head_dim);
        let rows = Layout::seq_major(1, tokens, config.num_q_heads, head_dim);
        let cache = Layout::seq_major(1, capacity, config.num_kv_heads, head_dim);
        let view = |buffer, layout| TensorView::new(buffer, DType::F32, layout);
        let seq_lens_kv = Some(U32View::new(&self.shared.state, 0, 1));
        let mut lists = None;
        if let Some((plan, source)) = &plans.selection {
            let problem = plan.problem().clone();
            let blocks: BlockListSpec = problem.blocks();
            let num_lists = blocks.num_lists(problem.shape());
            // A new buffer is zero: lists without blocks.
            let indices = buffer(&ctx, "wattn.lm.block_indices", num_lists * u64::from(blocks.max_blocks))?;
            let counts = buffer(&ctx, "wattn.lm.block_counts", num_lists)?;
            let filled_by = match *source {
                ListSource::Selected => {
                    let blocks = views(&indices, &counts);
                    let args = SelectionArgs::new(view(&scratch.q, rows), view(&layer.k, cache), blocks)
                        .with_seq_lens_kv(seq_lens_kv);
                    let cache = Workspace::new(&ctx, plan.cache_bytes())?;
                    let memory = SelectionMemory::new(&scratch.samples, &scratch.scores, &cache);
                    Filler::Selection(Selection::prepare(&ctx, plan)?.bind_with(args, memory)?)
                }
                ListSource::Random { seed } => Filler::Random(seed),
                ListSource::Empty => Filler::Nobody,
            };
            lists = Some(Lists { problem, indices, counts, filled_by });
        }
        let args = AttentionArgs::new(
            view(&scratch.q, rows),
            view(&layer.k, cache),
            view(&layer.v, cache),
            TensorViewMut::new(&scratch.heads, DType::F32, rows),
        )
        .with_seq_lens_kv(seq_lens_kv)
        .with_blocks(lists.as_ref().map(|lists| views(&lists.indices, &lists.counts)));
        let attend = Attention::prepare(&ctx, &plans.attention)?.bind_with(args, &scratch.attention)?;
        Ok((lists, attend))
    }

    /// The dispatches from every token of a chunk to its logits.
    pub(in crate::lm) fn all_logits(&self, chunk: &Chunk, logits: &wgpu::Buffer) -> LmResult<Vec<Step>> {
        let (tokens, weights) = (chunk.tokens, self.weights);
        let mut steps = vec![self.norm([&chunk.hidden, &weights.norm, &chunk.normed], 0, tokens)?];
        steps.extend(self.project(&chunk.normed, weights.head(), None, logits, tokens, false)?);
        Ok(steps)
    }
}

fn views<'a>(indices: &'a wgpu::Buffer, counts: &'a wgpu::Buffer) -> BlockListsView<'a> {
    let whole = |buffer: &'a wgpu::Buffer| U32View::new(buffer, 0, buffer.size() / 4);
    BlockListsView { block_indices: whole(indices), block_counts: whole(counts) }
}

impl Chunk {
    /// Writes the lists that the host computes. `at` is the position of the chunk's first token.
    pub(in crate::lm) fn write_lists(&self, queue: &wgpu::Queue, at: u32) -> LmResult<()> {
        for (index, layer) in self.layers.iter().enumerate() {
            if let Some(Lists { problem, indices, counts, filled_by: Filler::Random(seed) }) = &layer.lists {
                let blocks = random_lists(problem, *seed, index, at)?;
                queue.write_buffer(indices, 0, bytemuck::cast_slice(blocks.block_indices()));
                queue.write_buffer(counts, 0, bytemuck::cast_slice(blocks.block_counts()));
            }
        }
        Ok(())
    }

    /// The selection of a layer and the buffers of its lists, where it is sparse.
    pub(in crate::lm) fn lists(&self, layer: usize) -> Option<(&SelectionProblem, [&wgpu::Buffer; 2])> {
        let lists = self.layers[layer].lists.as_ref()?;
        Some((&lists.problem, [&lists.indices, &lists.counts]))
    }

    /// Encodes the model, from tokens to the logits of the last; `step` counts the decode steps since the last prompt.
    pub(in crate::lm) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, step: u64, attention: bool) {
        self.embed.iter().for_each(|step| step.encode_in(pass));
        for layer in &self.layers {
            layer.before.iter().for_each(|step| step.encode_in(pass));
            if attention {
                if let Some(Lists { filled_by: Filler::Selection(selection), .. }) = &layer.lists {
                    selection.encode_step_in(pass, step);
                }
                layer.attend.encode_in(pass);
            }
            layer.after.iter().for_each(|step| step.encode_in(pass));
        }
        self.last.iter().for_each(|step| step.encode_in(pass));
    }
}
