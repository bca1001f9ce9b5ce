//! `config.json` of a checkpoint.

mod fields;
mod keys;
mod rope;
mod windows;

use serde_json::Value;

use super::error::{LmError, LmResult};
use super::json;
use super::rope::Rope;
use fields::Fields;

const FILE: &str = "config.json";

/// Families of models, which differ only in their biases and norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// `llama`.
    Llama,
    /// `mistral`: Llama whose layers may see a window only.
    Mistral,
    /// `qwen2`: Llama with biases on q, k and v.
    Qwen2,
    /// `qwen3`: Llama with a norm on each head of q and k.
    Qwen3,
}

/// The sizes and constants of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LmConfig {
    /// The family.
    pub architecture: Architecture,
    /// Size of the vocabulary.
    pub vocab_size: u32,
    /// Width of the residual stream, a multiple of 4.
    pub hidden_size: u32,
    /// Width of the MLP, a multiple of 4.
    pub intermediate_size: u32,
    /// Layers.
    pub num_layers: u32,
    /// Query heads, a multiple of `num_kv_heads`.
    pub num_q_heads: u32,
    /// Heads of keys and values.
    pub num_kv_heads: u32,
    /// Width of a head, a multiple of 4 up to 256.
    pub head_dim: u32,
    /// Added to the mean square of a norm.
    pub rms_norm_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// Whether q, k and v have biases.
    pub qkv_bias: bool,
    /// Whether the projection after attention has a bias.
    pub out_bias: bool,
    /// Whether the projections of the MLP have biases.
    pub mlp_bias: bool,
    /// Whether each head of q and k is normed.
    pub qk_norm: bool,
    /// Whether the head shares the embedding's weights.
    pub tied: bool,
    /// The trained context, in tokens.
    pub trained_len: u32,
    /// For each layer the number of keys that a query sees, itself included; `None`: all before it.
    pub sliding_windows: Vec<Option<u32>>,
    /// Tokens that end a text.
    pub eos_tokens: Vec<u32>,
    /// The token that begins a text.
    pub bos_token: Option<u32>,
}

impl LmConfig {
    /// Reads the text of a `config.json`. A missing field has the value that transformers gives it.
    ///
    /// [`LmError::Format`] for text that is no JSON object; [`LmError::Config`] naming the field, its value and the rule, also for an
    /// unknown field.
    pub fn from_json(text: &str) -> LmResult<Self> {
        let json = json::object(FILE, text)?;
        let fields = Fields::new(FILE, &json);
        let architecture = match fields.get("model_type").and_then(Value::as_str) {
            Some("llama") => Architecture::Llama,
            Some("mistral") => Architecture::Mistral,
            Some("qwen2") => Architecture::Qwen2,
            Some("qwen3") => Architecture::Qwen3,
            _ => return Err(fields.error("model_type", "must be llama, mistral, qwen2 or qwen3")),
        };
        keys::check(&fields, architecture)?;
        if fields.get("hidden_act").is_some_and(|act| act != "silu" && act != "swish") {
            return Err(fields.error("hidden_act", "must be silu"));
        }
        let defaults = Defaults::of(architecture);
        let reads = |field: &str| keys::read_by(architecture).contains(&field);
        let bias = |field: &str| Ok::<_, LmError>(reads(field) && fields.bool(field, false)?);
        let hidden_size = fields.u32("hidden_size", 4096)?;
        let num_q_heads = fields.u32("num_attention_heads", 32)?;
        let trained_len = fields.u32("max_position_embeddings", defaults.trained_len)?;
        let attention_bias = bias("attention_bias")?;
        let num_layers = fields.u32("num_hidden_layers", 32)?;
        let vocab_size = fields.u32("vocab_size", defaults.vocab_size)?;
        let head_dim = match architecture {
            Architecture::Qwen3 => fields.u32("head_dim", 128)?,
            _ => fields.u32_or_null("head_dim", None)?.unwrap_or(hidden_size / num_q_heads),
        };
        let num_kv_heads = fields.u32_or_null("num_key_value_heads", defaults.num_kv_heads)?.unwrap_or(num_q_heads);
        let mut config = Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: fields.u32("intermediate_size", defaults.intermediate_size)?,
            num_layers,
            num_q_heads,
            num_kv_heads,
            head_dim,
            rms_norm_eps: fields.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope: rope::rope(&fields, trained_len)?,
            qkv_bias: attention_bias || architecture == Architecture::Qwen2,
            out_bias: attention_bias,
            mlp_bias: bias("mlp_bias")?,
            qk_norm: architecture == Architecture::Qwen3,
            tied: fields.bool("tie_word_embeddings", false)?,
            trained_len,
            sliding_windows: Vec::new(),
            eos_tokens: fields.tokens("eos_token_id", vocab_size)?,
            bos_token: fields.tokens("bos_token_id", vocab_size)?.first().copied(),
        };
        config.validate(&fields)?;
        // One for each layer, whose number was bounded above.
        config.sliding_windows = windows::sliding_windows(&fields, architecture, num_layers)?;
        Ok(config)
    }

    /// Takes the tokens that end a text from a `generation_config.json`, if it names any.
    pub(super) fn read_generation(&mut self, text: &str) -> LmResult<()> {
        const FILE: &str = "generation_config.json";
        let json = json::object(FILE, text)?;
        let fields = Fields::new(FILE, &json);
        if fields.get("eos_token_id").is_some() {
            self.eos_tokens = fields.tokens("eos_token_id", self.vocab_size)?;
        }
        Ok(())
    }

    fn validate(&self, fields: &Fields<'_>) -> LmResult<()> {
        if !self.num_q_heads.is_multiple_of(self.num_kv_heads) {
            return Err(fields.error("num_key_value_heads", "must divide num_attention_heads"));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(4) || self.head_dim > 256 {
            return Err(fields.error("head_dim", "must be a multiple of 4 up to 256"));
        }
        for (field, value, most) in [
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_attention_heads", self.num_q_heads, 1 << 10),
            ("num_hidden_layers", self.num_layers, 1 << 10),
            ("vocab_size", self.vocab_size, 1 << 22),
        ] {
            if value > most {
                return Err(fields.error(field, "is larger than that of any model that fits a machine"));
            }
        }
        for (field, value) in [("hidden_size", self.hidden_size), ("intermediate_size", self.intermediate_size)] {
            if !value.is_multiple_of(4) {
                return Err(fields.error(field, "must be a multiple of 4"));
            }
        }
        Ok(())
    }

    /// Query heads that share a KV head.
    #[must_use]
    pub const fn group_size(&self) -> u32 {
        self.num_q_heads / self.num_kv_heads
    }

    /// Columns of the projected q, k and v of a token together.
    #[must_use]
    pub const fn qkv_size(&self) -> u32 {
        (self.num_q_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// Columns of the result of attention.
    #[must_use]
    pub const fn q_size(&self) -> u32 {
        self.num_q_heads * self.head_dim
    }
}

/// transformers' values for missing fields, where families differ.
struct Defaults {
    vocab_size: u32,
    intermediate_size: u32,
    /// `None`: the number of query heads.
    num_kv_heads: Option<u32>,
    trained_len: u32,
}

impl Defaults {
    const fn of(architecture: Architecture) -> Self {
        let (vocab_size, intermediate_size, num_kv_heads, trained_len) = match architecture {
            Architecture::Llama => (32000, 11008, None, 2048),
            Architecture::Mistral => (32000, 14336, Some(8), 131_072),
            Architecture::Qwen2 | Architecture::Qwen3 => (151_936, 22016, Some(32), 32768),
        };
        Self { vocab_size, intermediate_size, num_kv_heads, trained_len }
    }
}
