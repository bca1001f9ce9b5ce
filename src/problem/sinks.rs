//! Sinks: logits without keys.

use crate::DType;

/// A logit of each query head that joins the sum of the weights of its rows, and has no key and no value: `out` of a row is its values'
/// weighted sum divided by `sum exp(score) + exp(sink)`. It is neither scaled nor modified. The lse leaves it out, so that parts of a row
/// merge with or without it. A row that sees no key gives zeros.
///
/// The *sinks* of sparse attention are something else: the first keys, which every query sees
/// ([`BlockListSpec::with_sink_size`](crate::BlockListSpec::with_sink_size)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sinks {
    /// A logit of 0 for every head: softmax off by one (Miller 2023).
    Zero,
    /// A tensor `[1, 1, 1, num_q_heads]` of this type, which comes with each call under the name `sinks` (gpt-oss).
    Learned(DType),
}

impl Sinks {
    /// The name of the tensor.
    pub(crate) const NAME: &'static str = "sinks";
}

impl core::fmt::Display for Sinks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Zero => f.write_str("sinks of 0"),
            Self::Learned(dtype) => write!(f, "learned sinks {dtype}"),
        }
    }
}
