//! The tensors of a model by their role, under their Hugging Face names.

use super::checkpoint::Checkpoint;
use super::config::LmConfig;
use super::error::LmResult;
use super::matrix::Matrix;

/// A projection `x W^T + b`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

/// One layer. Projections of one input lie one after another in one matrix.
#[derive(Clone, Debug)]
pub(crate) struct LayerWeights {
    pub(crate) input_norm: Vec<f32>,
    /// Rows of q, then k, then v.
    pub(crate) qkv: Linear,
    /// Weights of the norms of the heads of q and of k.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    pub(crate) out: Linear,
    pub(crate) mlp_norm: Vec<f32>,
    /// Rows of the gate, then of what it gates.
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
}

/// All of a model.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) norm: Vec<f32>,
    /// `None`: the embedding.
    pub(crate) head: Option<Matrix>,
}

impl Weights {
    /// Reads every tensor; `read` hears how many of the layers are in memory.
    pub(crate) fn load(config: &LmConfig, checkpoint: &Checkpoint, read: &mut dyn FnMut(u32)) -> LmResult<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let linear = |names: &[(String, u32)], cols: u32, bias: bool| -> LmResult<Linear> {
            let matrix = |(name, rows): &(String, u32)| checkpoint.matrix(&format!("{name}.weight"), *rows, cols);
            let parts = names.iter().map(matrix).collect::<LmResult<Vec<_>>>()?;
            let vector = |(name, rows): &(String, u32)| checkpoint.vector(&format!("{name}.bias"), *rows);
            let biases =
                if bias { Some(names.iter().map(vector).collect::<LmResult<Vec<_>>>()?.concat()) } else { None };
            Ok(Linear { weight: Matrix::stack(parts), bias: biases })
        };
        let layer = |index: u32| -> LmResult<LayerWeights> {
            let name = |part: &str| format!("model.layers.{index}.{part}");
            let kv = config.num_kv_heads * config.head_dim;
            let qkv = [("q_proj", config.q_size()), ("k_proj", kv), ("v_proj", kv)];
            let qkv = qkv.map(|(part, rows)| (name(&format!("self_attn.{part}")), rows));
            let gate_up = ["gate_proj", "up_proj"].map(|part| (name(&format!("mlp.{part}")), inner));
            let norm = |part: &str, len| checkpoint.vector(&name(&format!("{part}.weight")), len);
            let head_norms = if config.qk_norm {
                Some([norm("self_attn.q_norm", config.head_dim)?, norm("self_attn.k_norm", config.head_dim)?])
            } else {
                None
            };
            Ok(LayerWeights {
                input_norm: norm("input_layernorm", width)?,
                qkv: linear(&qkv, width, config.qkv_bias)?,
                head_norms,
                out: linear(&[(name("self_attn.o_proj"), width)], config.q_size(), config.out_bias)?,
                mlp_norm: norm("post_attention_layernorm", width)?,
                gate_up: linear(&gate_up, width, config.mlp_bias)?,
                down: linear(&[(name("mlp.down_proj"), width)], inner, config.mlp_bias)?,
            })
        };
        let embedding = checkpoint.matrix("model.embed_tokens.weight", config.vocab_size, width)?;
        let mut layers = Vec::new();
        for index in 0..config.num_layers {
            layers.push(layer(index)?);
            read(index + 1);
        }
        let norm = checkpoint.vector("model.norm.weight", width)?;
        let head =
            if config.tied { None } else { Some(checkpoint.matrix("lm_head.weight", config.vocab_size, width)?) };
        Ok(Self { embedding, layers, norm, head })
    }

    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
