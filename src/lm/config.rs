//! `config.json` of a checkpoint.

use serde_json::Value;

use super::error::{LmError, LmResult};
use super::rope::{Rope, RopeScaling};

/// Families of models that differ in where there are biases and norms, and in nothing else.
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
    /// Tokens that there are.
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
    /// Whether the projection behind attention has one.
    pub out_bias: bool,
    /// Whether those of the MLP have one.
    pub mlp_bias: bool,
    /// Whether each head of q and k is normed.
    pub qk_norm: bool,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// The trained context, in tokens.
    pub trained_len: u32,
    /// Of each layer the keys that a query sees, itself included; `None`: all before it.
    pub sliding_windows: Vec<Option<u32>>,
    /// Logits are `cap * tanh(logits / cap)`.
    pub final_softcap: Option<f32>,
    /// Tokens that end a text.
    pub eos_tokens: Vec<u32>,
    /// The token that begins a text.
    pub bos_token: Option<u32>,
}

/// The object, or one nested in it.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn error(&self, field: &'static str, rule: &'static str) -> LmError {
        LmError::Config { field, value: self.get(field).map_or("missing".to_owned(), Value::to_string), rule }
    }

    fn u32_or(&self, field: &'static str, default: Option<u32>) -> LmResult<u32> {
        match self.get(field) {
            None => default.ok_or_else(|| self.error(field, "is required")),
            Some(value) => value
                .as_u64()
                .and_then(|value| u32::try_from(value).ok())
                .filter(|&value| value > 0)
                .ok_or_else(|| self.error(field, "must be a positive integer below 2^32")),
        }
    }

    fn u32(&self, field: &'static str) -> LmResult<u32> {
        self.u32_or(field, None)
    }

    fn f64_or(&self, field: &'static str, default: Option<f64>) -> LmResult<f64> {
        match self.get(field) {
            None => default.ok_or_else(|| self.error(field, "is required")),
            Some(value) => value
                .as_f64()
                .filter(|value| value.is_finite() && *value > 0.0)
                .ok_or_else(|| self.error(field, "must be a positive number")),
        }
    }

    fn bool_or(&self, field: &'static str, default: bool) -> LmResult<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.error(field, "must be true or false")),
        }
    }

    /// A token, a list of tokens, or none.
    fn tokens(&self, field: &'static str, vocab_size: u32) -> LmResult<Vec<u32>> {
        let values = match self.get(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.iter().collect(),
            Some(value) => vec![value],
        };
        let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
        let rule = "must be tokens of the vocabulary";
        let in_vocabulary = |value| token(value).filter(|&token| token < vocab_size);
        values.into_iter().map(|value| in_vocabulary(value).ok_or_else(|| self.error(field, rule))).collect()
    }
}

impl LmConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`LmError::Format`] for text that is no JSON object; [`LmError::Config`] naming the field, its value and the rule.
    pub fn from_json(text: &str) -> LmResult<Self> {
        let format = |reason: String| LmError::Format { file: "config.json".to_owned(), reason };
        let json: Value = serde_json::from_str(text).map_err(|error| format(error.to_string()))?;
        if !json.is_object() {
            return Err(format("must be a JSON object".to_owned()));
        }
        let fields = Fields(&json);
        let architecture = match fields.get("model_type").and_then(Value::as_str) {
            Some("llama") => Architecture::Llama,
            Some("mistral") => Architecture::Mistral,
            Some("qwen2") => Architecture::Qwen2,
            Some("qwen3") => Architecture::Qwen3,
            _ => return Err(fields.error("model_type", "must be llama, mistral, qwen2 or qwen3")),
        };
        if fields.get("hidden_act").is_some_and(|act| act != "silu") {
            return Err(fields.error("hidden_act", "must be silu"));
        }
        if fields.get("attn_logit_softcapping").is_some() {
            return Err(fields.error("attn_logit_softcapping", "must be null: scores of attention are not capped"));
        }
        if fields.get("partial_rotary_factor").is_some_and(|factor| factor.as_f64() != Some(1.0)) {
            return Err(fields.error("partial_rotary_factor", "must be 1: heads rotate as a whole"));
        }
        let hidden_size = fields.u32("hidden_size")?;
        let num_q_heads = fields.u32("num_attention_heads")?;
        let trained_len = fields.u32_or("max_position_embeddings", Some(2048))?;
        let attention_bias = fields.bool_or("attention_bias", false)?;
        let num_layers = fields.u32("num_hidden_layers")?;
        let vocab_size = fields.u32("vocab_size")?;
        let config = Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: fields.u32("intermediate_size")?,
            num_layers,
            num_q_heads,
            num_kv_heads: fields.u32_or("num_key_value_heads", Some(num_q_heads))?,
            head_dim: fields.u32_or("head_dim", Some(hidden_size / num_q_heads))?,
            rms_norm_eps: fields.f64_or("rms_norm_eps", Some(1e-6))? as f32,
            rope: rope(&fields, trained_len)?,
            qkv_bias: attention_bias || architecture == Architecture::Qwen2,
            out_bias: attention_bias && architecture != Architecture::Qwen2,
            mlp_bias: fields.bool_or("mlp_bias", false)?,
            qk_norm: architecture == Architecture::Qwen3,
            tied: fields.bool_or("tie_word_embeddings", false)?,
            trained_len,
            sliding_windows: sliding_windows(&fields, architecture, num_layers)?,
            final_softcap: match fields.get("final_logit_softcapping") {
                None => None,
                Some(_) => Some(fields.f64_or("final_logit_softcapping", None)? as f32),
            },
            eos_tokens: fields.tokens("eos_token_id", vocab_size)?,
            bos_token: fields.tokens("bos_token_id", vocab_size)?.first().copied(),
        };
        config.validate(&fields)?;
        Ok(config)
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

    /// Caps logits as the model says.
    pub(crate) fn cap_logits(&self, logits: &mut [f32]) {
        if let Some(cap) = self.final_softcap {
            logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
        }
    }

    /// Columns of the result of attention.
    #[must_use]
    pub const fn q_size(&self) -> u32 {
        self.num_q_heads * self.head_dim
    }
}

/// `rope_theta` and `rope_scaling`, or the newer `rope_parameters` with both.
fn rope(fields: &Fields<'_>, trained_len: u32) -> LmResult<Rope> {
    let nested = fields.get("rope_parameters").or_else(|| fields.get("rope_scaling"));
    let scaling = nested.map(Fields);
    let theta_within = scaling.as_ref().filter(|nested| nested.get("rope_theta").is_some());
    let theta = theta_within.unwrap_or(fields).f64_or("rope_theta", Some(10000.0))?;
    let Some(scaling) = scaling else { return Ok(Rope { theta, scaling: RopeScaling::None }) };
    let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
    let original_len = scaling.f64_or("original_max_position_embeddings", Some(f64::from(trained_len)))?;
    let factor = || scaling.f64_or("factor", None);
    let scaling = match kind {
        Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: factor()? },
        Some("dynamic") => RopeScaling::Dynamic { factor: factor()? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: scaling.f64_or("low_freq_factor", None)?,
            high_freq_factor: scaling.f64_or("high_freq_factor", None)?,
            original_len,
        },
        Some("yarn") => {
            let factor = factor()?;
            let default = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
            RopeScaling::Yarn {
                factor,
                beta_fast: scaling.f64_or("beta_fast", Some(32.0))?,
                beta_slow: scaling.f64_or("beta_slow", Some(1.0))?,
                original_len,
                attention_factor: scaling.f64_or("attention_factor", Some(default))?,
            }
        }
        _ => return Err(scaling.error("rope_type", "must be default, linear, dynamic, llama3 or yarn")),
    };
    Ok(Rope { theta, scaling })
}

fn sliding_windows(fields: &Fields<'_>, architecture: Architecture, num_layers: u32) -> LmResult<Vec<Option<u32>>> {
    let qwen = matches!(architecture, Architecture::Qwen2 | Architecture::Qwen3);
    let used = match architecture {
        Architecture::Llama => false,
        _ => fields.get("sliding_window").is_some() && (!qwen || fields.bool_or("use_sliding_window", false)?),
    };
    if !used {
        return Ok(vec![None; num_layers as usize]);
    }
    let window = fields.u32("sliding_window")?;
    if let Some(types) = fields.get("layer_types") {
        let rule = "must name full_attention or sliding_attention for each layer";
        let types = types.as_array().filter(|types| types.len() == num_layers as usize);
        let one = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") => Ok(Some(window)),
            _ => Err(fields.error("layer_types", rule)),
        };
        return types.ok_or_else(|| fields.error("layer_types", rule))?.iter().map(one).collect();
    }
    // The first layers of Qwen see everything.
    let first = match fields.get("max_window_layers") {
        Some(first) if qwen => {
            first.as_u64().ok_or_else(|| fields.error("max_window_layers", "must be a number of layers"))?
        }
        _ => 0,
    };
    Ok((0..u64::from(num_layers)).map(|layer| (layer >= first).then_some(window)).collect())
}
