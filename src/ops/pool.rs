//! Summaries of blocks of keys on the GPU.

use super::bind::{Access, Expect, U32View, check_lens, check_tensor};
use super::operator::{BindArgs, Call, Operator};
use crate::{DType, DeviceCaps, PoolProblem, Result, TensorView, TensorViewMut};

/// The compiled pipeline of a [`PoolPlan`](crate::PoolPlan).
pub type Pool = Operator<PoolProblem>;

/// The tensors of one pooling.
#[derive(Debug)]
pub struct PoolArgs<'a> {
    k: TensorView<'a>,
    seq_lens: Option<U32View<'a>>,
    summaries: TensorViewMut<'a>,
}

impl<'a> PoolArgs<'a> {
    /// Keys `[batch, seq, head, dim]`, and where their summaries go: [`PoolProblem::summaries_shape`], f32.
    #[must_use]
    pub const fn new(k: TensorView<'a>, summaries: TensorViewMut<'a>) -> Self {
        Self { k, seq_lens: None, summaries }
    }

    /// `[batch]`: the length of each sequence, exactly when the problem says [`PoolProblem::with_seq_lens`].
    #[must_use]
    pub fn with_seq_lens(mut self, seq_lens: impl Into<Option<U32View<'a>>>) -> Self {
        self.seq_lens = seq_lens.into();
        self
    }
}

impl BindArgs for PoolProblem {
    type Args<'a> = PoolArgs<'a>;

    fn bind<'a>(&self, args: Self::Args<'a>, caps: &DeviceCaps) -> Result<Call<'a>> {
        let expect = |tensor, shape, dtype, access| Expect { tensor, shape, dtype, access, at_a_time: 4 };
        let k = check_tensor(args.k, expect("k", self.shape, self.dtype, Access::Read), caps)?;
        let lens = check_lens("seq_lens", args.seq_lens, self.seq_lens, self.shape[0], caps)?;
        let wanted = expect("summaries", self.summaries_shape(), DType::F32, Access::Write);
        let summaries = check_tensor(args.summaries.as_view(), wanted, caps)?;
        let [batch_size, seq_len_kv, num_heads, _] = self.shape;
        let num_blocks = self.summaries_shape()[1];
        let call = Call::new(&[("batch_size", batch_size), ("seq_len_kv", seq_len_kv), ("num_heads", num_heads)])
            .number("block_size", self.block_size)
            .number("num_blocks", num_blocks);
        Ok(call.vec4("k", k).vec4("summaries", summaries).lengths(lens))
    }
}
