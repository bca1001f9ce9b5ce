//! The best entries of rows of scores on the GPU.

use super::BlockListsView;
use super::bind::{Access, Expect, U32View, check_tensor, check_u32};
use super::operator::{BindArgs, Call, Operator};
use crate::problem::exactly_when;
use crate::{DType, DeviceCaps, Result, TensorView, TopKProblem};

/// The compiled pipeline of a [`TopKPlan`](crate::TopKPlan).
pub type TopK = Operator<TopKProblem>;

/// The tensors of one top-k.
#[derive(Debug)]
pub struct TopKArgs<'a> {
    scores: TensorView<'a>,
    marks: Option<U32View<'a>>,
    lists: BlockListsView<'a>,
}

impl<'a> TopKArgs<'a> {
    /// Scores `[batch, set, q_block, n]` in f32, and where the [lists](TopKProblem::lists_shape) go.
    #[must_use]
    pub const fn new(scores: TensorView<'a>, lists: BlockListsView<'a>) -> Self {
        Self { scores, marks: None, lists }
    }

    /// A [`Mark`](crate::Mark) for each score, contiguous, exactly when the problem says [`TopKProblem::with_marks`].
    #[must_use]
    pub fn with_marks(mut self, marks: impl Into<Option<U32View<'a>>>) -> Self {
        self.marks = marks.into();
        self
    }
}

impl BindArgs for TopKProblem {
    type Args<'a> = TopKArgs<'a>;

    fn bind<'a>(&self, args: Self::Args<'a>, caps: &DeviceCaps) -> Result<Call<'a>> {
        let [_, num_sets, num_q_blocks, num_entries] = self.shape;
        let expect =
            Expect { tensor: "scores", shape: self.shape, dtype: DType::F32, access: Access::Read, at_a_time: 1 };
        let scores = check_tensor(args.scores, expect, caps)?;
        let indices = check_u32(args.lists.block_indices, "block_indices", self.num_rows() * u64::from(self.k), caps)?;
        let counts = check_u32(args.lists.block_counts, "block_counts", self.num_rows(), caps)?;
        let marks = exactly_when("marks", args.marks, self.marks)?
            .map(|view| check_u32(view, "marks", self.num_rows() * u64::from(num_entries), caps))
            .transpose()?;
        let call = Call::new(&[
            ("num_rows", self.num_rows() as u32), // fewer than 2^32 entries in all: validated
            ("num_sets", num_sets),
            ("num_q_blocks", num_q_blocks),
            ("num_entries", num_entries),
            ("k", self.k),
            ("block_size", self.block_size),
            // Larger numbers count as all entries, so that sums stay within 32 bits.
            ("forced_first", self.forced_first.min(num_entries)),
            ("forced_last", self.forced_last.min(num_entries)),
            ("indices_offset", indices.offset),
            ("counts_offset", counts.offset),
            ("marks_offset", marks.as_ref().map_or(0, |marks| marks.offset)),
        ]);
        let call = call.scores("scores", scores).list("marks", marks);
        Ok(call.list("block_indices", Some(indices)).list("block_counts", Some(counts)))
    }
}
