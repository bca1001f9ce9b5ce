//! Lists of blocks of one sequence.

use crate::{AttentionShape, BlockListSpec, HostBlockLists};

/// The lists of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Lists<'a> {
    pub(super) selection: &'a BlockListSpec,
    pub(super) blocks: &'a HostBlockLists,
    pub(super) batch: u32,
}

impl<'a> Lists<'a> {
    /// The list of a query and head.
    pub(super) fn list(&self, shape: &AttentionShape, q_head: u32, query: u32) -> &'a [u32] {
        let set = self.selection.granularity.set_of_head(shape, q_head);
        self.blocks.list(self.batch, set, query / self.selection.block_size_q)
    }

    /// Whether the query's block attends to all keys that the mask allows.
    pub(super) fn is_dense(&self, shape: &AttentionShape, seq_len_kv: u32, query: u32) -> bool {
        let block_end = (query / self.selection.block_size_q + 1).saturating_mul(self.selection.block_size_q);
        let last = i64::from(shape.seq_len_q.min(block_end)) - 1;
        self.selection.is_dense(last + i64::from(seq_len_kv) - i64::from(shape.seq_len_q))
    }
}
