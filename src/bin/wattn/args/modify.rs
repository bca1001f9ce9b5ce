//! Modifiers of scores and sinks: options of `attend`.

use core::str::FromStr;

use clap::{Args, ValueEnum};

/// Functions of scores, and sinks.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ScoreArgs {
    /// Pass each score through a function; several apply in the order given: `softcap=X`, `alibi` (published slopes), `alibi=TENSOR`
    /// (slopes [num_q_heads]), `bias=TENSOR` ([batch, num_q_heads, seq_len_q, seq_len_kv], axes may have size 1). Tensors are those of the
    /// input
    #[arg(long = "score-mod", value_name = "MOD")]
    pub(crate) score_mods: Vec<ScoreModArg>,
    /// Let a logit of each query head join the sum of its rows' weights: 0, or the tensor `sinks` [num_q_heads] of the input
    #[arg(long = "sink-logits", value_enum, value_name = "KIND")]
    pub(crate) sinks: Option<SinksArg>,
}

/// A function of scores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ScoreModArg {
    Softcap(f32),
    Alibi,
    /// The name of the tensor of slopes.
    AlibiSlopes(String),
    /// The name of the tensor.
    Bias(String),
}

impl FromStr for ScoreModArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "alibi" => Ok(Self::Alibi),
            Some(("alibi", name)) => Ok(Self::AlibiSlopes(name.to_owned())),
            Some(("bias", name)) => Ok(Self::Bias(name.to_owned())),
            Some(("softcap", cap)) => {
                cap.parse().map(Self::Softcap).map_err(|_| format!("softcap takes a number, `{cap}` is none"))
            }
            _ => Err("expected softcap=X, alibi, alibi=TENSOR or bias=TENSOR".to_owned()),
        }
    }
}

/// The kinds of sinks.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinksArg {
    /// A logit of 0: softmax off by one
    Zero,
    /// The tensor `sinks` of the input
    Learned,
}
