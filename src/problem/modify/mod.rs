//! What becomes of a score between q·k and softmax: modifiers, one after the other.

mod alibi;
mod bias;
mod softcap;

pub use alibi::{Alibi, published_slopes};
pub use bias::{BatchIndex, Bias};
pub use softcap::Softcap;

use super::AttentionShape;
use crate::Result;

/// A function of a score, applied to `softmax_scale * q·k` of each (query, key) pair, in natural units.
/// [`AttentionProblem::with_score_mod`](crate::AttentionProblem::with_score_mod) adds one to the end of the problem's chain.
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
    pub(super) fn validate(&self, shape: &AttentionShape) -> Result<()> {
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
