//! What becomes of a score between q·k and softmax: modifiers, one after the other.

mod alibi;
mod bias;
mod softcap;

pub use alibi::{Alibi, published_slopes};
pub use bias::{BatchIndex, Bias};
pub use softcap::Softcap;

use super::{AttentionProblem, AttentionShape, Sinks};
use crate::{DType, Error, Result};

/// A function of a score, applied to `softmax_scale * q·k` of each (query, key) pair, in natural units.
/// [`AttentionProblem::with_score_mod`] adds one to the end of the problem's chain.
///
/// | modifier | the score `s` becomes | source |
/// |---|---|---|
/// | [`Softcap`] | `cap * tanh(s / cap)` | Gemma 2, section 2 |
/// | [`Alibi`] | `s - slope[head] * abs(position - key)` | ALiBi (Press et al. 2022), section 3 |
/// | [`Bias`] | `s + bias[batch, head, query, key]` | T5, Swin, AlphaFold, masks of other libraries |
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ScoreMod {
    /// Soft capping.
    Softcap(Softcap),
    /// Attention with linear biases.
    Alibi(Alibi),
    /// A tensor that is added.
    Bias(Bias),
}

impl From<Softcap> for ScoreMod {
    fn from(softcap: Softcap) -> Self {
        Self::Softcap(softcap)
    }
}

impl From<Alibi> for ScoreMod {
    fn from(alibi: Alibi) -> Self {
        Self::Alibi(alibi)
    }
}

impl From<Bias> for ScoreMod {
    fn from(bias: Bias) -> Self {
        Self::Bias(bias)
    }
}

impl ScoreMod {
    fn validate(&self, shape: &AttentionShape) -> Result<()> {
        match self {
            Self::Softcap(softcap) => softcap.validate(),
            Self::Alibi(alibi) => alibi.validate(shape),
            Self::Bias(bias) => bias.validate(shape),
        }
    }

    /// Whether the scores of a row keep their order, so that a selection of the best by q·k is one of the best modified.
    #[must_use]
    pub const fn keeps_order(&self) -> bool {
        match self {
            Self::Softcap(_) => true,
            Self::Alibi(_) | Self::Bias(_) => false,
        }
    }

    /// Whether it can make a score -infinity, which hides the key from the row.
    pub(crate) const fn hides_keys(&self) -> bool {
        match self {
            Self::Softcap(_) | Self::Alibi(_) => false,
            Self::Bias(_) => true,
        }
    }
}

impl core::fmt::Display for ScoreMod {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Softcap(softcap) => write!(f, "{softcap}"),
            Self::Alibi(alibi) => write!(f, "{alibi}"),
            Self::Bias(bias) => write!(f, "{bias}"),
        }
    }
}

impl AttentionProblem {
    /// The longest chain of modifiers.
    pub const MAX_SCORE_MODS: usize = 8;

    /// Adds a modifier of scores to the end of the chain. A score of at most [`LEAST_SCORE`](crate::LEAST_SCORE) after
    /// the whole chain hides its key: the row does not see it.
    ///
    /// ```
    /// use wattn::{Alibi, AttentionProblem, AttentionShape, DType, Mask, Softcap};
    /// let shape = AttentionShape {
    ///     batch_size: 1, seq_len_q: 512, seq_len_kv: 512,
    ///     num_q_heads: 8, num_kv_heads: 2, head_dim: 64, head_dim_v: 64,
    /// };
    /// // First the cap, then the bias, which is not capped.
    /// let problem = AttentionProblem::new(shape, DType::F32)
    ///     .with_mask(Mask::Causal)
    ///     .with_score_mod(Softcap::new(50.0))
    ///     .with_score_mod(Alibi::published());
    /// problem.validate()?;
    /// # Ok::<(), wattn::Error>(())
    /// ```
    #[must_use]
    pub fn with_score_mod(mut self, modifier: impl Into<ScoreMod>) -> Self {
        self.score_mods.push(modifier.into());
        self
    }

    /// The modifiers of scores, in their order.
    #[must_use]
    pub fn score_mods(&self) -> &[ScoreMod] {
        &self.score_mods
    }

    /// The modifiers that take a tensor with the call.
    pub(crate) fn biases(&self) -> impl Iterator<Item = &Bias> {
        self.score_mods.iter().filter_map(|modifier| match modifier {
            ScoreMod::Bias(bias) => Some(bias),
            ScoreMod::Softcap(_) | ScoreMod::Alibi(_) => None,
        })
    }

    /// The tensors that come with the call by name: name, shape and element type of each.
    pub(crate) fn named_tensors(&self) -> impl Iterator<Item = (&'static str, [u32; 4], DType)> {
        let sinks = self.sinks.and_then(|sinks| match sinks {
            Sinks::Zero => None,
            Sinks::Learned(dtype) => Some((Sinks::NAME, [1, 1, 1, self.shape.num_q_heads], dtype)),
        });
        self.biases().map(|bias| (bias.name(), bias.shape(), bias.dtype())).chain(sinks)
    }

    pub(super) fn check_score_mods(&self) -> Result<()> {
        let needed = self.score_mods.len();
        if needed > Self::MAX_SCORE_MODS {
            let (needed, available) = (needed as u64, Self::MAX_SCORE_MODS as u64);
            return Err(Error::TooLarge { what: "modifiers of scores", needed, available });
        }
        self.score_mods.iter().try_for_each(|modifier| modifier.validate(&self.shape))?;
        let names: Vec<_> = self.biases().map(Bias::name).collect();
        if let Some(&argument) = names.iter().enumerate().find(|&(at, name)| names[..at].contains(name)).map(|(_, n)| n)
        {
            return Err(Error::Argument { argument, rule: "is the name of two biases of a problem" });
        }
        Ok(())
    }
}
