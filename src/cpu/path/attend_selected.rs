//! Block-sparse attention on the CPU: the tiles of [`attend`](super::attend()) over gathered keys.

use super::attend::{CpuTiling, ScratchPool, attend_sequence, deal_heads, fold};
use super::sequence::{Partial, Sequence};
use super::stream_selected::attend_walk;
use super::tile::{RowTile, TileKeys, TileSoftmax};
use super::walk::{Part, Walk, is_dense};
use crate::{
    AttentionOutput, AttentionProblem, BlockListSpec, Element, Granularity, HostBlockLists, HostInputs, HostTensor,
};
use core::ops::Range;
use rayon::prelude::*;

/// Most rows of a tile: gathered keys are used by as many rows as their scores leave room for in the L2 cache.
const MAX_TILE_ROWS: usize = 256;

/// Attention to selected blocks, sinks and window. Inputs are valid, and `selection` and `blocks` are theirs.
pub(super) fn attend_selected<T: Element>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    selection: &BlockListSpec,
    blocks: &HostBlockLists,
) -> AttentionOutput {
    let shape = problem.shape();
    let mut out = HostTensor::zeros(problem.out_shape());
    let mut lse = HostTensor::zeros(problem.lse_shape());
    let rows_per_sequence = shape.seq_len_q as usize * shape.num_q_heads as usize;
    if rows_per_sequence > 0 {
        let pool = ScratchPool::default();
        let outs = out.data_mut().par_chunks_mut(rows_per_sequence * shape.head_dim_v as usize);
        let lses = lse.data_mut().par_chunks_mut(rows_per_sequence);
        (0..shape.batch_size).into_par_iter().zip(outs).zip(lses).for_each(|((batch, out), lse)| {
            let sequence = Sequence::new(problem, inputs, batch);
            let last = shape.seq_len_q as usize - 1;
            if is_dense(selection, shape, sequence.seq_len_kv, &(last..last + 1)) {
                // The last query block is dense, and so are those before it.
                attend_sequence(&sequence, &CpuTiling::default(), &pool, out, lse);
            } else {
                Selected { problem, selection, sequence, blocks, batch, pool: &pool }.attend(out, lse);
            }
        });
    }
    AttentionOutput { out, lse }
}

struct Selected<'a, T> {
    problem: &'a AttentionProblem,
    selection: &'a BlockListSpec,
    sequence: Sequence<'a, T>,
    blocks: &'a HostBlockLists,
    batch: u32,
    pool: &'a ScratchPool,
}

impl<T: Element> Selected<'_, T> {
    fn attend(&self, out: &mut [f32], lse: &mut [f32]) {
        let shape = self.sequence.shape;
        let [seq_len_q, num_q_heads, dim_v] =
            [shape.seq_len_q, shape.num_q_heads, shape.head_dim_v].map(|n| n as usize);
        // Heads whose rows share keys.
        let num_heads = match self.selection.granularity {
            Granularity::QueryHead => 1,
            _ => shape.group_size(),
        };
        let tiles = self.query_tiles((MAX_TILE_ROWS / num_heads as usize).max(1));
        // Heads that share a list can read whole tokens where they stream.
        let longest = tiles.iter().map(|queries| queries.len()).max().unwrap_or(0);
        let streams = longest * num_heads as usize <= CpuTiling::default().stream_rows as usize;
        let heads_per_task = match self.selection.granularity {
            Granularity::Layer if streams => shape.num_q_heads,
            _ => num_heads,
        };
        let num_tasks = tiles.len() * (shape.num_q_heads / heads_per_task) as usize;
        let wanted_splits = CpuTiling::MAX_SPLITS / num_tasks;

        let (mut outs, mut lses) = (out, lse);
        let mut pieces = Vec::with_capacity(tiles.len());
        for queries in tiles {
            let (out, rest) = outs.split_at_mut(queries.len() * num_q_heads * dim_v);
            let (lse, rest_lse) = lses.split_at_mut(queries.len() * num_q_heads);
            (outs, lses) = (rest, rest_lse);
            pieces.push((queries, out, lse));
        }
        debug_assert!(seq_len_q == 0 || lses.is_empty());
        pieces.into_par_iter().with_max_len(1).for_each(|(queries, out, lse)| {
            deal_heads(shape, heads_per_task, out, lse).into_par_iter().enumerate().with_max_len(1).for_each(
                |(index, mut slices)| {
                    let [num_heads, heads_per_task] = [num_heads, heads_per_task].map(|n| n as usize);
                    let first_head = index * heads_per_task;
                    let walk = self.walk(first_head as u32, &queries);
                    let rows = queries.start * num_heads..queries.end * num_heads;
                    // More than one turn only when a group alone is larger than a tile.
                    for start in rows.clone().step_by(MAX_TILE_ROWS) {
                        let tile = RowTile {
                            kv_head: first_head / shape.group_size() as usize,
                            first_head,
                            num_heads,
                            rows: start..rows.end.min(start + MAX_TILE_ROWS),
                        };
                        let num_kv_heads = heads_per_task / num_heads;
                        let partial = self.attend_splits(&tile, num_kv_heads, &walk, wanted_splits);
                        let rows =
                            (0..num_kv_heads).flat_map(|kv_head| tile.rows.clone().map(move |row| (kv_head, row)));
                        for (at, (kv_head, row)) in rows.enumerate() {
                            let (q_index, g) = (row / num_heads, kv_head * num_heads + row % num_heads);
                            let (out, lse) = &mut slices[q_index - queries.start];
                            let out = &mut out[g * dim_v..][..dim_v];
                            lse[g] = partial.finish(at, out);
                        }
                    }
                },
            );
        });
    }

    /// Cuts every query block into tiles of at most `max_queries`.
    fn query_tiles(&self, max_queries: usize) -> Vec<Range<usize>> {
        let seq_len_q = self.sequence.shape.seq_len_q as usize;
        let block_size_q = self.selection.block_size_q as usize;
        let blocks = (0..seq_len_q).step_by(block_size_q).map(|start| start..seq_len_q.min(start + block_size_q));
        let tiles = |block: Range<usize>| {
            let num_tiles = block.len().div_ceil(max_queries);
            let len = block.len().div_ceil(num_tiles);
            block.clone().step_by(len).map(move |start| start..block.end.min(start + len))
        };
        blocks.flat_map(tiles).collect()
    }

    fn walk(&self, q_head: u32, queries: &Range<usize>) -> Walk {
        let (selection, shape) = (self.selection, self.sequence.shape);
        let set = selection.granularity.set_of_head(shape, q_head);
        // A query index is a u32.
        let list = self.blocks.list(self.batch, set, queries.start as u32 / selection.block_size_q);
        Walk::new(selection, shape, self.problem.mask(), self.sequence.seq_len_kv, queries, list)
    }

    /// The rows of `tile`; of several KV heads only where there are few.
    fn attend_splits(&self, tile: &RowTile, num_kv_heads: usize, walk: &Walk, wanted_splits: usize) -> Partial {
        let tiling = CpuTiling::default();
        let attend = |part: &Part<'_>| {
            if tile.rows.len() <= tiling.stream_rows as usize {
                attend_walk(&self.sequence, tile, num_kv_heads, walk, part, tiling.tile_kv as usize)
            } else {
                self.pool.with(|scratch| {
                    let mut softmax = TileSoftmax::new(&self.sequence, tile, scratch);
                    absorb_walk(&mut softmax, tile, walk, part, tiling.tile_kv as usize);
                    softmax.finish()
                })
            }
        };
        let least = walk.len().div_ceil(wanted_splits.max(1)).max(tiling.split_kv as usize / num_kv_heads).max(1);
        match &*walk.parts(least) {
            [part] => attend(part),
            parts => {
                let partials = parts.par_iter().with_max_len(1).map(attend).collect();
                fold(partials).unwrap_or_else(|| attend(&parts[0]))
            }
        }
    }
}

fn absorb_walk<T: Element>(
    softmax: &mut TileSoftmax<'_, T>,
    tile: &RowTile,
    walk: &Walk,
    part: &Part<'_>,
    tile_kv: usize,
) {
    let q_indices = tile.q_indices();
    let sees_all = |queries: [Range<usize>; 2]| {
        queries.iter().all(|queries| queries.start <= q_indices.start && q_indices.end <= queries.end)
    };
    // Even tiles: a short last one would cost as much as a long one.
    let even = |len: usize| len.div_ceil(len.div_ceil(tile_kv).max(1)).max(1);
    for keys in part.listed.chunks(even(part.listed.len())) {
        let masked = !sees_all([keys[0], keys[keys.len() - 1]].map(|key| walk.queries_of_listed(key as usize)));
        let lanes_of = |key| tile.lanes_of(&walk.queries_of_listed(key));
        softmax.absorb(&TileKeys::List(keys), masked.then_some(&lanes_of));
    }
    for start in part.near.clone().step_by(even(part.near.len())) {
        let keys = start..part.near.end.min(start + even(part.near.len()));
        let masked = !sees_all([keys.start, keys.end - 1].map(|key| walk.queries_of_near(key)));
        let lanes_of = |key| tile.lanes_of(&walk.queries_of_near(key));
        softmax.absorb(&TileKeys::Run(keys), masked.then_some(&lanes_of));
    }
}
