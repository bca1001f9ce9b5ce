//! Divides the rows of a sequence into tasks.

use super::lists::Lists;
use super::sequence::Sequence;
use super::tiling::CpuTiling;
use crate::{AttentionShape, Element, Granularity};
use core::ops::Range;

/// Limit on the rows of a tile that goes through lists: as many rows as their scores leave room for in the L2 cache share gathered keys.
const MAX_LISTED_ROWS: usize = 256;

/// The rows of a task, and its way through their keys. Depends on the sequence and the tiling, never on threads.
pub(super) struct Deal {
    /// The queries of each task, in order.
    queries: Vec<Range<usize>>,
    /// Neighbouring query heads whose rows share a walk and a KV head.
    pub(super) heads_per_walk: usize,
    /// Neighbouring query heads of a task: the heads of one walk, or of several KV heads where rows stream.
    pub(super) heads_per_task: usize,
    /// Limit on the rows of a tile.
    pub(super) tile_rows: usize,
    /// Tiles of at most this many rows stream.
    pub(super) stream_rows: usize,
    /// Number of parts that each task's walk may be cut into.
    pub(super) wanted_parts: usize,
}

/// Out and lse of each query of a task, `[heads_per_task, head_dim_v]` and `[heads_per_task]`.
pub(super) type Slices<'a> = Vec<(&'a mut [f32], &'a mut [f32])>;

impl Deal {
    pub(super) fn new<T: Element>(sequence: &Sequence<'_, T>, tiling: &CpuTiling) -> Self {
        let shape = sequence.shape;
        let mut deal = match &sequence.lists {
            None => Self::of_range(shape, tiling),
            Some(lists) => Self::of_lists(shape, lists, tiling),
        };
        let num_tasks = deal.queries.len() * (shape.num_q_heads as usize / deal.heads_per_task);
        deal.wanted_parts = CpuTiling::MAX_SPLITS / num_tasks;
        deal
    }

    /// Few rows: one task for the whole sequence, which reads whole tokens. Many rows: tiles of queries, for each KV head.
    fn of_range(shape: &AttentionShape, tiling: &CpuTiling) -> Self {
        let [seq_len_q, num_q_heads, group] =
            [shape.seq_len_q, shape.num_q_heads, shape.group_size()].map(|n| n as usize);
        let tile_q = tiling.tile_q as usize;
        if seq_len_q.saturating_mul(group) <= tiling.stream_rows as usize {
            let all = usize::MAX;
            return Self {
                queries: core::iter::once(0..seq_len_q).collect(),
                heads_per_walk: group,
                heads_per_task: num_q_heads,
                tile_rows: all,
                stream_rows: all,
                wanted_parts: 0,
            };
        }
        let queries_per_tile = (tile_q / group).max(1);
        let tile = |start: usize| start..seq_len_q.min(start.saturating_add(queries_per_tile));
        Self {
            queries: (0..seq_len_q).step_by(queries_per_tile).map(tile).collect(),
            heads_per_walk: group,
            heads_per_task: group,
            tile_rows: tile_q,
            stream_rows: 0,
            wanted_parts: 0,
        }
    }

    /// Even tiles of each query block.
    fn of_lists(shape: &AttentionShape, lists: &Lists<'_>, tiling: &CpuTiling) -> Self {
        let granularity = lists.selection.granularity;
        let [seq_len_q, num_q_heads, group, block_size_q] =
            [shape.seq_len_q, shape.num_q_heads, shape.group_size(), lists.selection.block_size_q].map(|n| n as usize);
        let heads_per_walk = match granularity {
            Granularity::QueryHead => 1,
            Granularity::KvHead | Granularity::Layer => group,
        };
        let most_queries = (MAX_LISTED_ROWS / heads_per_walk).max(1);
        let blocks = (0..seq_len_q).step_by(block_size_q).map(|start| start..seq_len_q.min(start + block_size_q));
        let tiles = |block: Range<usize>| {
            let num_tiles = block.len().div_ceil(most_queries);
            let len = block.len().div_ceil(num_tiles);
            block.clone().step_by(len).map(move |start| start..block.end.min(start + len))
        };
        let queries: Vec<Range<usize>> = blocks.flat_map(tiles).collect();
        let stream_rows = tiling.stream_rows as usize;
        // Heads that share a list can read whole tokens if all their tiles stream.
        let streams = queries.iter().all(|queries| queries.len() * heads_per_walk <= stream_rows);
        let heads_per_task = match granularity {
            Granularity::Layer if streams => num_q_heads,
            Granularity::QueryHead | Granularity::KvHead | Granularity::Layer => heads_per_walk,
        };
        Self { queries, heads_per_walk, heads_per_task, tile_rows: MAX_LISTED_ROWS, stream_rows, wanted_parts: 0 }
    }

    /// Cuts `out` and `lse` of a sequence by the queries of the tasks.
    pub(super) fn cut<'a>(
        &self,
        shape: &AttentionShape,
        mut out: &'a mut [f32],
        mut lse: &'a mut [f32],
    ) -> Vec<(Range<usize>, &'a mut [f32], &'a mut [f32])> {
        let [num_q_heads, dim_v] = [shape.num_q_heads, shape.head_dim_v].map(|n| n as usize);
        let cut = |queries: &Range<usize>| {
            let (of_out, rest) = core::mem::take(&mut out).split_at_mut(queries.len() * num_q_heads * dim_v);
            let (of_lse, rest_lse) = core::mem::take(&mut lse).split_at_mut(queries.len() * num_q_heads);
            (out, lse) = (rest, rest_lse);
            (queries.clone(), of_out, of_lse)
        };
        self.queries.iter().map(cut).collect()
    }

    /// Divides `out` and `lse` of some queries among the sets of heads.
    pub(super) fn sets<'a>(&self, shape: &AttentionShape, out: &'a mut [f32], lse: &'a mut [f32]) -> Vec<Slices<'a>> {
        let num_sets = shape.num_q_heads as usize / self.heads_per_task;
        let num_queries = lse.len() / shape.num_q_heads as usize;
        let mut sets: Vec<Slices<'a>> = (0..num_sets).map(|_| Vec::with_capacity(num_queries)).collect();
        let outs = out.chunks_exact_mut(self.heads_per_task * shape.head_dim_v as usize);
        for (i, slices) in outs.zip(lse.chunks_exact_mut(self.heads_per_task)).enumerate() {
            sets[i % num_sets].push(slices);
        }
        sets
    }
}
