//! Which rows share tiles.

use super::tiling::Tiling;
use crate::BlockListSpec;
use crate::{AttentionProblem, AttentionShape, Granularity};

/// The query heads whose rows share a walk: the heads of a KV head, or single heads where each selects its own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowSets {
    pub(crate) num_sets: u32,
    pub(crate) heads_per_set: u32,
    /// The queries whose rows share tiles: the queries of a query block, or all.
    pub(crate) block_size_q: u32,
}

impl RowSets {
    pub(crate) fn of(problem: &AttentionProblem) -> Self {
        let shape = problem.shape();
        let heads_per_set = match problem.blocks {
            Some(BlockListSpec { granularity: Granularity::QueryHead, .. }) => 1,
            Some(BlockListSpec { granularity: Granularity::KvHead | Granularity::Layer, .. }) | None => {
                shape.group_size()
            }
        };
        let block_size_q = problem.blocks.map_or(shape.seq_len_q, |blocks| blocks.block_size_q.min(shape.seq_len_q));
        Self { num_sets: shape.num_q_heads / heads_per_set, heads_per_set, block_size_q: block_size_q.max(1) }
    }

    pub(crate) fn rows_per_set(&self, shape: &AttentionShape) -> u64 {
        u64::from(shape.seq_len_q) * u64::from(self.heads_per_set)
    }

    /// The number of rows that may share a tile.
    pub(crate) fn rows_per_q_block(&self) -> u64 {
        u64::from(self.block_size_q) * u64::from(self.heads_per_set)
    }

    pub(crate) fn tiles_per_q_block(&self, tiling: Tiling) -> u64 {
        self.rows_per_q_block().div_ceil(u64::from(tiling.tile_q()))
    }

    pub(in crate::plan) fn row_tiles(&self, shape: &AttentionShape, tiling: Tiling) -> u64 {
        u64::from(shape.seq_len_q.div_ceil(self.block_size_q)) * self.tiles_per_q_block(tiling)
    }
}
