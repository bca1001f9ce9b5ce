//! The tensors of a model by their role, under their Hugging Face names.

use super::checkpoint::Checkpoint;
use super::config::LmConfig;
use super::error::LmResult;
use super::files;
use super::matrix::Matrix;

/// A projection `x W^T + b`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

/// One layer. Projections of the same input are stacked in one matrix.
#[derive(Clone, Debug)]
pub(crate) struct LayerWeights {
    pub(crate) input_norm: Vec<f32>,
    /// Rows of q, then k, then v.
    pub(crate) qkv: Linear,
    /// Weights of the norms of the heads of q and of k.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    pub(crate) out: Linear,
    pub(crate) mlp_norm: Vec<f32>,
    /// Rows of the gate, then of its operand.
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
}

/// All weights of a model.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) norm: Vec<f32>,
    /// `None`: the embedding.
    pub(crate) head: Option<Matrix>,
}

/// A tensor of a layer.
#[derive(Clone, Copy, Debug)]
enum Part {
    InputNorm,
    Q,
    K,
    V,
    QNorm,
    KNorm,
    Out,
    MlpNorm,
    Gate,
    Up,
    Down,
}

impl Part {
    const ALL: [Self; 11] = [
        Self::InputNorm,
        Self::Q,
        Self::K,
        Self::V,
        Self::QNorm,
        Self::KNorm,
        Self::Out,
        Self::MlpNorm,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    fn name(self, layer: u32) -> String {
        let part = match self {
            Self::InputNorm => "input_layernorm",
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::QNorm => "self_attn.q_norm",
            Self::KNorm => "self_attn.k_norm",
            Self::Out => "self_attn.o_proj",
            Self::MlpNorm => "post_attention_layernorm",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        };
        format!("model.layers.{layer}.{part}")
    }

    /// Rows, and columns where it is a matrix.
    fn shape(self, config: &LmConfig) -> (u32, Option<u32>) {
        let (width, inner, kv) = (config.hidden_size, config.intermediate_size, config.num_kv_heads * config.head_dim);
        match self {
            Self::InputNorm | Self::MlpNorm => (width, None),
            Self::QNorm | Self::KNorm => (config.head_dim, None),
            Self::Q => (config.q_size(), Some(width)),
            Self::K | Self::V => (kv, Some(width)),
            Self::Out => (width, Some(config.q_size())),
            Self::Gate | Self::Up => (inner, Some(width)),
            Self::Down => (width, Some(inner)),
        }
    }

    const fn is_there(self, config: &LmConfig) -> bool {
        config.qk_norm || !matches!(self, Self::QNorm | Self::KNorm)
    }

    const fn has_bias(self, config: &LmConfig) -> bool {
        match self {
            Self::Q | Self::K | Self::V => config.qkv_bias,
            Self::Out => config.out_bias,
            Self::Gate | Self::Up | Self::Down => config.mlp_bias,
            _ => false,
        }
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// The names of the embedding and the head: if one is tied to the other, either is enough.
fn ends(config: &LmConfig, checkpoint: &Checkpoint) -> (&'static str, Option<&'static str>) {
    match (config.tied, checkpoint.has(EMBEDDING), checkpoint.has(HEAD)) {
        (true, false, true) => (HEAD, None),
        (true, _, false) => (EMBEDDING, None),
        _ => (EMBEDDING, Some(HEAD)),
    }
}

/// Checks every tensor, and the memory for all, before the first is read.
fn check(config: &LmConfig, checkpoint: &Checkpoint) -> LmResult<()> {
    let (vocab_size, width) = (config.vocab_size as usize, config.hidden_size as usize);
    let (embedding, head) = ends(config, checkpoint);
    let mut needed = checkpoint.check(embedding, &[vocab_size, width])?;
    for layer in 0..config.num_layers {
        for part in Part::ALL.into_iter().filter(|part| part.is_there(config)) {
            let (name, (rows, cols)) = (part.name(layer), part.shape(config));
            let shape: Vec<usize> = [rows].into_iter().chain(cols).map(|n| n as usize).collect();
            needed = needed.saturating_add(checkpoint.check(&format!("{name}.weight"), &shape)?);
            if part.has_bias(config) {
                needed = needed.saturating_add(checkpoint.check(&format!("{name}.bias"), &shape[..1])?);
            }
        }
    }
    needed = needed.saturating_add(checkpoint.check(NORM, &[width])?);
    if let Some(head) = head {
        needed = needed.saturating_add(checkpoint.check(head, &[vocab_size, width])?);
    }
    files::check_memory("the model", needed)
}

impl Weights {
    /// Reads every tensor; calls `read` with the number of layers in memory.
    pub(crate) fn load(config: &LmConfig, checkpoint: &Checkpoint, read: &mut dyn FnMut(u32)) -> LmResult<Self> {
        check(config, checkpoint)?;
        let vector = |part: Part, layer, of: &str, rows| checkpoint.vector(&format!("{}.{of}", part.name(layer)), rows);
        let norm = |part: Part, layer| vector(part, layer, "weight", part.shape(config).0);
        let linear = |parts: &[Part], layer| -> LmResult<Linear> {
            let (mut weights, mut biases) = (Vec::with_capacity(parts.len()), Vec::new());
            for part in parts {
                let (rows, cols) = part.shape(config);
                weights.push(checkpoint.matrix(&format!("{}.weight", part.name(layer)), rows, cols.unwrap_or(1))?);
                if part.has_bias(config) {
                    biases.extend(vector(*part, layer, "bias", rows)?);
                }
            }
            let bias = if biases.is_empty() { None } else { Some(biases) };
            Ok(Linear { weight: Matrix::stack(weights), bias })
        };
        let layer = |layer: u32| -> LmResult<LayerWeights> {
            let head_norms =
                if config.qk_norm { Some([norm(Part::QNorm, layer)?, norm(Part::KNorm, layer)?]) } else { None };
            Ok(LayerWeights {
                input_norm: norm(Part::InputNorm, layer)?,
                qkv: linear(&[Part::Q, Part::K, Part::V], layer)?,
                head_norms,
                out: linear(&[Part::Out], layer)?,
                mlp_norm: norm(Part::MlpNorm, layer)?,
                gate_up: linear(&[Part::Gate, Part::Up], layer)?,
                down: linear(&[Part::Down], layer)?,
            })
        };
        let (vocab_size, width) = (config.vocab_size, config.hidden_size);
        let (embedding, head) = ends(config, checkpoint);
        let embedding = checkpoint.matrix(embedding, vocab_size, width)?;
        let mut layers = Vec::new();
        for index in 0..config.num_layers {
            layers.push(layer(index)?);
            read(index + 1);
        }
        let norm = checkpoint.vector(NORM, width)?;
        let head = head.map(|head| checkpoint.matrix(head, vocab_size, width)).transpose()?;
        // A separate head is used, whatever the configuration says; one that equals the embedding is stored once.
        let head = head.filter(|head| !config.tied || *head != embedding);
        Ok(Self { embedding, layers, norm, head })
    }

    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
