//! The model on the CPU. Each file is the twin of a kernel of `shaders/lm`.

mod embed_tokens;
mod gate_mlp;
mod project_token;
mod project_tokens;
mod rms_norm;
mod rotate_heads;
mod sample_token;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use embed_tokens::embed_tokens;
pub use gate_mlp::gate_mlp;
pub use project_token::project_token;
pub use project_tokens::project_tokens;
pub use rms_norm::rms_norm;
pub use rotate_heads::{Heads, rotate_heads};
pub use sample_token::sample_token;

use super::error::LmResult;
use super::files::check_memory;
use super::matrix::Matrix;
use super::model::Model;
use super::options::{ChunkLists, LayerAttention, ListSource, SessionOptions};
use super::problems::{LayerProblems, random_lists};
use super::weights::{LayerWeights, Linear};
use crate::cpu::{self, StageCache};
use crate::quality::{MassReport, captured_mass, no_blocks};
use crate::{AttentionOutput, HostInputs, HostTensor};

/// State of one layer between calls.
#[derive(Debug)]
struct LayerCache {
    /// The attention of a decode step.
    one_token: LayerProblems,
    k: HostTensor,
    v: HostTensor,
    /// The lists of the last chunk.
    lists: Option<ChunkLists>,
    stages: StageCache,
    /// Captured mass, `[token, head]`.
    mass: Vec<f32>,
}

/// A model and the tokens that it has read.
#[derive(Debug)]
pub(crate) struct CpuRunner {
    model: Arc<Model>,
    options: SessionOptions,
    rope: Vec<f32>,
    layers: Vec<LayerCache>,
    /// Tokens decoded since the last prompt.
    step: u64,
    pub(crate) measure_mass: bool,
    pub(crate) attention_time: Duration,
}

impl CpuRunner {
    pub(crate) fn new(model: &Arc<Model>, options: &SessionOptions) -> LmResult<Self> {
        let config = model.config();
        let shape = [1, options.capacity, config.num_kv_heads, config.head_dim];
        let row = u64::from(config.head_dim) * (1 + 2 * u64::from(config.num_kv_heads) * u64::from(config.num_layers));
        check_memory("the cache of keys and values", 4 * row * u64::from(options.capacity))?;
        let layer = |index| -> LmResult<LayerCache> {
            // Problems that attention does not take are reported before the first token.
            let one_token = LayerProblems::new(config, options, index, 1)?;
            let (k, v) = (HostTensor::zeros(shape), HostTensor::zeros(shape));
            Ok(LayerCache { one_token, k, v, lists: None, stages: StageCache::default(), mass: Vec::new() })
        };
        Ok(Self {
            rope: config.rope.table(config.head_dim, config.trained_len, options.text_len, options.capacity),
            layers: (0..config.num_layers as usize).map(layer).collect::<LmResult<_>>()?,
            model: Arc::clone(model),
            options: options.clone(),
            step: 0,
            measure_mass: false,
            attention_time: Duration::ZERO,
        })
    }

    /// Drops the state of decode steps.
    pub(crate) fn restart(&mut self) {
        self.step = 0;
    }

    /// Reads tokens at position `at`; logits of the last, or of all.
    pub(crate) fn forward(&mut self, tokens: &[u32], at: u32, all: bool) -> LmResult<Vec<f32>> {
        let model = Arc::clone(&self.model);
        let (config, weights) = (model.config(), model.weights());
        let mut x = embed_tokens(tokens, &weights.embedding);
        for (index, layer) in weights.layers.iter().enumerate() {
            let normed = rms_norm(&x, &layer.input_norm, config.rms_norm_eps);
            let heads = self.attend(index, layer, &normed, at)?;
            add(&mut x, &project(&heads, &layer.out));
            let normed = rms_norm(&x, &layer.mlp_norm, config.rms_norm_eps);
            let gated = gate_mlp(&project(&normed, &layer.gate_up), config.intermediate_size as usize);
            add(&mut x, &project(&gated, &layer.down));
        }
        self.step = if tokens.len() == 1 { self.step + 1 } else { 0 };
        let first = if all { 0 } else { (tokens.len() - 1) * config.hidden_size as usize };
        let normed = rms_norm(&x[first..], &weights.norm, config.rms_norm_eps);
        Ok(product(&normed, weights.head(), None))
    }

    /// Heads of a layer, `[token, q_size]`.
    fn attend(&mut self, index: usize, layer: &LayerWeights, normed: &[f32], at: u32) -> LmResult<Vec<f32>> {
        let config = self.model.config();
        let qkv = project(normed, &layer.qkv);
        let [num_q_heads, num_kv_heads, head_dim] =
            [config.num_q_heads, config.num_kv_heads, config.head_dim].map(|n| n as usize);
        let norms = layer.head_norms.as_ref().map(|norms| (norms, config.rms_norm_eps));
        let table = &self.rope[at as usize * head_dim..];
        let [q, k, v] = rotate_heads(&qkv, Heads { num_q_heads, num_kv_heads, head_dim }, norms, table);
        let cache = &mut self.layers[index];
        let start = at as usize * num_kv_heads * head_dim;
        cache.k.data_mut()[start..start + k.len()].copy_from_slice(&k);
        cache.v.data_mut()[start..start + v.len()].copy_from_slice(&v);

        let begin = Instant::now();
        let tokens = (q.len() / (num_q_heads * head_dim)) as u32; // a chunk
        let LayerCache { one_token, k, v, lists, stages, mass } = cache;
        let of_chunk;
        let problems = if tokens == 1 {
            one_token
        } else {
            of_chunk = LayerProblems::new(config, &self.options, index, tokens)?;
            &of_chunk
        };
        let q = HostTensor::new(problems.dense.q_shape(), q)?;
        let seq_lens = [at + tokens];
        let inputs = HostInputs::new(&q, k, v).with_seq_lens_kv(&seq_lens);
        let output = match (&problems.sparse, &self.options.attention[index]) {
            (Some((selection, sparse)), LayerAttention::Sparse { lists: source, .. }) => {
                let chosen = match source {
                    ListSource::Empty => no_blocks(selection),
                    ListSource::Random { seed } => random_lists(selection, *seed, index, at)?,
                    ListSource::Selected => {
                        let step = if tokens == 1 { self.step } else { 0 };
                        // Only decode steps may use the state of another.
                        let kept = lists.take().filter(|lists| tokens == 1 && lists.tokens == 1);
                        match (selection.first_stage(step), kept) {
                            (None, Some(lists)) => lists.blocks,
                            (stage, _) => {
                                cpu::select_from(selection, &inputs.for_selection(), stage.unwrap_or(0), stages)?
                            }
                        }
                    }
                };
                let output = cpu::attend(sparse, &inputs.with_blocks(&chosen))?;
                *lists = Some(ChunkLists { at, tokens, selection: selection.blocks(), blocks: chosen });
                if self.measure_mass {
                    let AttentionOutput { lse, .. } = cpu::attend(&problems.dense, &inputs)?;
                    mass.extend(captured_mass(&output.lse, &lse)?.into_data());
                }
                output
            }
            _ => cpu::attend(&problems.dense, &inputs)?,
        };
        self.attention_time += begin.elapsed();
        Ok(output.out.into_data())
    }

    /// The lists of a layer for the last chunk.
    pub(crate) fn lists(&self, layer: usize) -> Option<ChunkLists> {
        self.layers[layer].lists.clone()
    }

    /// Captured mass of the sparse layers, over all tokens read since it was requested.
    pub(crate) fn mass(&self) -> LmResult<MassReport> {
        let heads = self.model.config().num_q_heads;
        let mut report = MassReport::new();
        for (index, layer) in self.layers.iter().enumerate().filter(|(_, layer)| !layer.mass.is_empty()) {
            let tokens = layer.mass.len() as u32 / heads; // fewer than the capacity for each document
            report.add_layer(format!("layer {index}"), &HostTensor::new([1, tokens, heads, 1], layer.mass.clone())?)?;
        }
        Ok(report)
    }
}

fn project(x: &[f32], linear: &Linear) -> Vec<f32> {
    product(x, &linear.weight, linear.bias.as_deref())
}

fn product(x: &[f32], weight: &Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let one = x.len() == weight.cols();
    if one { project_token(x, weight, bias) } else { project_tokens(x, weight, bias) }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
