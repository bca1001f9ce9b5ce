//! What a problem does with scores between q·k and the weighted sum: modifiers, sinks, and their tensors.

use super::AttentionProblem;
use super::modify::{Bias, ScoreMod};
use super::sinks::Sinks;
use crate::{DType, Error, Result};

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
