//! Sinks: logits without keys.

use super::AttentionProblem;
use crate::DType;

/// A logit of each query head that joins the sum of the weights of its rows, and has no key and no value: `out` of a row is its values'
/// weighted sum divided by `sum exp(score) + exp(sink)`. It is neither scaled nor modified. The lse leaves it out, so that parts of a row
/// merge with or without it. A row that sees no key gives zeros.
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

impl AttentionProblem {
    /// Gives the rows sinks.
    ///
    /// ```
    /// use wattn::{cpu, AttentionProblem, AttentionShape, DType, HostInputs, HostTensor, Sinks};
    /// let shape = AttentionShape {
    ///     batch_size: 1, seq_len_q: 1, seq_len_kv: 1, num_q_heads: 1, num_kv_heads: 1, head_dim: 4, head_dim_v: 4,
    /// };
    /// let problem = AttentionProblem::new(shape, DType::F32).with_sinks(Sinks::Learned(DType::F32));
    /// let [q, k, v] = [0.0, 0.0, 3.0].map(|x| HostTensor::new([1, 1, 1, 4], vec![x; 4]).unwrap());
    /// let sinks = HostTensor::new([1, 1, 1, 1], vec![2.0f32.ln()])?;
    /// let tensors = [("sinks", (&sinks).into())];
    /// // One key of score 0, weight 1; the sink has weight 2.
    /// let out = cpu::attend(&problem, &HostInputs::new(&q, &k, &v).with_tensors(&tensors))?.out;
    /// assert!((out.data()[0] - 1.0).abs() < 1e-6);
    /// # Ok::<(), wattn::Error>(())
    /// ```
    #[must_use]
    pub const fn with_sinks(mut self, sinks: Sinks) -> Self {
        self.sinks = Some(sinks);
        self
    }

    /// The sinks, if rows have any.
    #[must_use]
    pub const fn sinks(&self) -> Option<Sinks> {
        self.sinks
    }
}
