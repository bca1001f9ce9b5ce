//! Scores of blocks of keys by their summaries on the GPU.

use super::bind::{Access, Expect, U32View, check_lens, check_tensor};
use super::operator::{BindArgs, Call, Operator};
use crate::{BlockScoreProblem, DType, DeviceCaps, Result, TensorView, TensorViewMut};

/// The compiled pipeline of a [`BlockScorePlan`](crate::BlockScorePlan).
pub type BlockScore = Operator<BlockScoreProblem>;

/// The tensors of one scoring.
#[derive(Debug)]
pub struct BlockScoreArgs<'a> {
    q: TensorView<'a>,
    summaries: TensorView<'a>,
    seq_lens_kv: Option<U32View<'a>>,
    scores: TensorViewMut<'a>,
}

impl<'a> BlockScoreArgs<'a> {
    /// Queries `[batch, seq_len_q, num_q_heads, head_dim]`, [summaries](BlockScoreProblem::summaries_shape) in f32, and where
    /// the [scores](BlockScoreProblem::scores_shape) go, f32.
    #[must_use]
    pub const fn new(q: TensorView<'a>, summaries: TensorView<'a>, scores: TensorViewMut<'a>) -> Self {
        Self { q, summaries, seq_lens_kv: None, scores }
    }

    /// `[batch]`: keys of each sequence, exactly when the problem says [`BlockScoreProblem::with_seq_lens_kv`].
    #[must_use]
    pub fn with_seq_lens_kv(mut self, seq_lens_kv: impl Into<Option<U32View<'a>>>) -> Self {
        self.seq_lens_kv = seq_lens_kv.into();
        self
    }
}

impl BindArgs for BlockScoreProblem {
    type Args<'a> = BlockScoreArgs<'a>;

    fn bind<'a>(&self, args: Self::Args<'a>, caps: &DeviceCaps) -> Result<Call<'a>> {
        let shape = &self.shape;
        let expect = |tensor, shape, dtype, at_a_time| Expect { tensor, shape, dtype, access: Access::Read, at_a_time };
        let q = check_tensor(args.q, expect("q", shape.q(), self.dtype, 4), caps)?;
        let wanted = expect("summaries", self.summaries_shape(), DType::F32, 4);
        let summaries = check_tensor(args.summaries, wanted, caps)?;
        let lens = check_lens("seq_lens_kv", args.seq_lens_kv, self.seq_lens_kv, shape.batch_size, caps)?;
        let wanted = Expect { access: Access::Write, ..expect("scores", self.scores_shape(), DType::F32, 1) };
        let scores = check_tensor(args.scores.as_view(), wanted, caps)?;
        let [_, num_sets, num_q_blocks, num_blocks] = self.scores_shape();
        let call = Call::new(&[
            ("batch_size", shape.batch_size),
            ("seq_len_q", shape.seq_len_q),
            ("seq_len_kv", shape.seq_len_kv),
            ("group_size", shape.group_size()),
            ("num_sets", num_sets),
            ("heads_per_set", self.granularity.heads_per_set(shape)),
            ("num_q_blocks", num_q_blocks),
            ("block_size_q", self.block_size_q),
            ("num_blocks", num_blocks),
            ("block_size", self.block_size),
            ("needed_key", self.needed_key()),
        ]);
        Ok(call.vec4("q", q).vec4("summaries", summaries).lengths(lens).scores("scores", scores))
    }
}
