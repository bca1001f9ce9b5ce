//! Blockwise attention on the CPU: tiles of query rows, splits of the keys, and how they are dealt to threads.

use super::attend_selected::attend_selected;
use super::sequence::{Partial, Sequence};
use super::stream::attend_stream;
use super::tile::{RowTile, Scratch, attend_tile};
use crate::{AttentionOutput, AttentionProblem, AttentionShape, Element, Error, HostInputs, HostTensor, Result};
use core::ops::Range;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Sizes of the pieces that [`attend_with_tiling`] works in. They change the speed and the last bits of the result,
/// and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CpuTiling {
    /// Query rows of a tile, counted over the query heads of one KV head.
    pub tile_q: u32,
    /// Keys of a tile.
    pub tile_kv: u32,
    /// Fewest keys that are worth a task of their own.
    pub split_kv: u32,
    /// Up to this many query rows for each KV head, k and v are streamed once for all heads.
    pub stream_rows: u32,
}

crate::setters::setters!(CpuTiling {
    with_tile_q(tile_q: u32)
    with_tile_kv(tile_kv: u32)
    with_split_kv(split_kv: u32)
    with_stream_rows(stream_rows: u32)
});

impl CpuTiling {
    /// Most pieces that the keys of a sequence are split into. A constant, so that the bits of the result depend
    /// neither on the number of threads nor on the batch; it bounds the memory of partial results.
    pub(super) const MAX_SPLITS: usize = 64;

    /// Whether there are so few rows that k and v are streamed.
    pub(super) fn streams(&self, shape: &AttentionShape) -> bool {
        u64::from(shape.seq_len_q) * u64::from(shape.group_size()) <= self.stream_rows.into()
    }

    fn validate(&self) -> Result<()> {
        for (field, value) in [("tile_q", self.tile_q), ("tile_kv", self.tile_kv), ("split_kv", self.split_kv)] {
            if value == 0 {
                return Err(Error::Invalid { field, value: 0, rule: "must be at least 1" });
            }
        }
        Ok(())
    }

    /// Cuts `keys` into at most `wanted` splits of whole tiles.
    fn splits(&self, keys: &Range<usize>, wanted: usize) -> Vec<Range<usize>> {
        let [tile_kv, split_kv] = [self.tile_kv, self.split_kv].map(|n| (n as usize).min(keys.len()).max(1));
        let num_splits = keys.len().div_ceil(split_kv).clamp(1, wanted.max(1));
        let len = keys.len().div_ceil(num_splits).next_multiple_of(tile_kv).max(1);
        keys.clone().step_by(len).map(|start| start..keys.end.min(start + len)).collect()
    }
}

impl CpuTiling {
    /// What was fastest with 48 KiB of L1 and 1 MiB of L2 cache per core: the scores of a tile fit L1, and `tile_q` is
    /// a multiple of the lanes of every vector.
    #[must_use]
    pub const fn new() -> Self {
        Self { tile_q: 64, tile_kv: 128, split_kv: 512, stream_rows: 4 }
    }
}

impl Default for CpuTiling {
    fn default() -> Self {
        Self::new()
    }
}

/// Attention by tiles of rows and keys with an online softmax, accumulated in f32. Where the problem takes lists of blocks,
/// to these, sinks and window; heads that share a list share its gathered keys and values.
///
/// The result has the same bits on every run, for any number of threads and any batch around a sequence. NaN and
/// infinities in q, k or v reach the rows that see them and no other row. A score beyond the range of f32 counts as
/// infinite.
///
/// # Errors
/// Those of [`HostInputs::validate`].
///
/// # Cost
/// Blocks until done, on all threads of the current rayon pool. Allocates the result, and per thread a tile of
/// scores: never a matrix of `seq_len_q * seq_len_kv`.
pub fn attend<T: Element>(problem: &AttentionProblem, inputs: &HostInputs<'_, T>) -> Result<AttentionOutput> {
    attend_with_tiling(problem, inputs, &CpuTiling::default())
}

/// [`attend`] with other tile sizes than the default. Those of a call with lists of blocks follow from the lists.
///
/// # Errors
/// Those of [`attend`], and [`Error::Invalid`] for a size of 0.
///
/// # Cost
/// That of [`attend`].
pub fn attend_with_tiling<T: Element>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    tiling: &CpuTiling,
) -> Result<AttentionOutput> {
    inputs.validate(problem)?;
    tiling.validate()?;
    if let (Some(selection), Some(blocks)) = (&problem.blocks, inputs.blocks) {
        return Ok(attend_selected(problem, inputs, selection, blocks));
    }
    let shape = problem.shape();
    let mut out = HostTensor::zeros(problem.out_shape());
    let mut lse = HostTensor::zeros(problem.lse_shape());
    let rows_per_sequence = shape.seq_len_q as usize * shape.num_q_heads as usize;
    if rows_per_sequence > 0 {
        let pool = ScratchPool::default();
        let outs = out.data_mut().par_chunks_mut(rows_per_sequence * shape.head_dim_v as usize);
        let lses = lse.data_mut().par_chunks_mut(rows_per_sequence);
        (0..shape.batch_size).into_par_iter().zip(outs).zip(lses).for_each(|((batch, out), lse)| {
            attend_sequence(&Sequence::new(problem, inputs, batch), tiling, &pool, out, lse);
        });
    }
    Ok(AttentionOutput { out, lse })
}

/// One sequence; there must be rows.
pub(super) fn attend_sequence<T: Element>(
    sequence: &Sequence<'_, T>,
    tiling: &CpuTiling,
    pool: &ScratchPool,
    out: &mut [f32],
    lse: &mut [f32],
) {
    if tiling.streams(sequence.shape) {
        stream_sequence(sequence, tiling, out, lse);
    } else {
        tile_sequence(sequence, tiling, pool, out, lse);
    }
}

/// Scratch memory of the tasks that run at one time.
#[derive(Default)]
pub(super) struct ScratchPool(Mutex<Vec<Scratch>>);

impl ScratchPool {
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lock().pop().unwrap_or_default();
        let result = work(&mut scratch);
        lock().push(scratch);
        result
    }
}

/// Adds partial results in the order of their keys; `None` when there are none.
pub(super) fn fold(partials: Vec<Partial>) -> Option<Partial> {
    partials.into_iter().reduce(|mut whole, next| {
        whole.absorb(&next);
        whole
    })
}

/// Few rows: one task per split of the keys, all heads in it.
fn stream_sequence<T: Element>(sequence: &Sequence<'_, T>, tiling: &CpuTiling, out: &mut [f32], lse: &mut [f32]) {
    let shape = sequence.shape;
    let [seq_len_q, num_q_heads, dim_v] = [shape.seq_len_q, shape.num_q_heads, shape.head_dim_v].map(|n| n as usize);
    let group = shape.group_size() as usize;
    let keys = sequence.visible_to_any(&(0..seq_len_q));
    let attend = |keys| attend_stream(sequence, keys, tiling.tile_kv as usize);
    let splits = tiling.splits(&keys, CpuTiling::MAX_SPLITS).into_par_iter().with_max_len(1);
    let partial = fold(splits.map(attend).collect()).unwrap_or_else(|| attend(keys));
    for (index, (out, lse)) in out.chunks_exact_mut(dim_v).zip(lse).enumerate() {
        let (q_index, head) = (index / num_q_heads, index % num_q_heads);
        let row = (head / group * seq_len_q + q_index) * group + head % group;
        *lse = partial.finish(row, out);
    }
}

/// Many rows: one task per tile of queries, KV head and split of the keys.
fn tile_sequence<T: Element>(
    sequence: &Sequence<'_, T>,
    tiling: &CpuTiling,
    pool: &ScratchPool,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let shape = sequence.shape;
    let [seq_len_q, num_q_heads, dim_v] = [shape.seq_len_q, shape.num_q_heads, shape.head_dim_v].map(|n| n as usize);
    let group = shape.group_size() as usize;
    let num_kv_heads = shape.num_kv_heads as usize;
    let queries_per_tile = (tiling.tile_q as usize / group).max(1);
    let num_tiles = seq_len_q.div_ceil(queries_per_tile) * num_kv_heads;
    let wanted_splits = CpuTiling::MAX_SPLITS / num_tiles;

    let outs = out.par_chunks_mut(queries_per_tile * num_q_heads * dim_v);
    let lses = lse.par_chunks_mut(queries_per_tile * num_q_heads);
    outs.zip(lses).enumerate().with_max_len(1).for_each(|(tile, (out, lse))| {
        let first_query = tile * queries_per_tile;
        let queries = first_query..seq_len_q.min(first_query + queries_per_tile);
        deal_heads(shape, shape.group_size(), out, lse).into_par_iter().enumerate().with_max_len(1).for_each(
            |(kv_head, mut slices)| {
                let rows = queries.start * group..queries.end * group;
                // More than one turn only when a group alone is larger than a tile.
                for start in rows.clone().step_by(tiling.tile_q as usize) {
                    let rows = start..rows.end.min(start.saturating_add(tiling.tile_q as usize));
                    let tile = RowTile { kv_head, first_head: kv_head * group, num_heads: group, rows };
                    let partial = attend_splits(sequence, tiling, pool, &tile, wanted_splits);
                    for (at, row) in tile.rows.clone().enumerate() {
                        let (q_index, g) = (row / group, row % group);
                        let (out, lse) = &mut slices[q_index - queries.start];
                        lse[g] = partial.finish(at, &mut out[g * dim_v..][..dim_v]);
                    }
                }
            },
        );
    });
}

/// Deals `out` and `lse` of some queries to sets of `num_heads` neighbouring query heads: `[set][query]`.
pub(super) fn deal_heads<'a>(
    shape: &AttentionShape,
    num_heads: u32,
    out: &'a mut [f32],
    lse: &'a mut [f32],
) -> Vec<Vec<(&'a mut [f32], &'a mut [f32])>> {
    let [num_heads, dim_v] = [num_heads, shape.head_dim_v].map(|n| n as usize);
    let num_sets = shape.num_q_heads as usize / num_heads;
    let num_queries = lse.len() / shape.num_q_heads as usize;
    let mut sets: Vec<Vec<_>> = (0..num_sets).map(|_| Vec::with_capacity(num_queries)).collect();
    for (i, slices) in out.chunks_exact_mut(num_heads * dim_v).zip(lse.chunks_exact_mut(num_heads)).enumerate() {
        sets[i % num_sets].push(slices);
    }
    sets
}

fn attend_splits<T: Element>(
    sequence: &Sequence<'_, T>,
    tiling: &CpuTiling,
    pool: &ScratchPool,
    tile: &RowTile,
    wanted_splits: usize,
) -> Partial {
    let keys = sequence.visible_to_any(&tile.q_indices());
    let attend = |keys| pool.with(|scratch| attend_tile(sequence, tile, keys, tiling.tile_kv as usize, scratch));
    match tiling.splits(&keys, wanted_splits) {
        splits if splits.len() <= 1 => attend(keys),
        splits => fold(splits.into_par_iter().with_max_len(1).map(attend).collect()).unwrap_or_else(|| attend(keys)),
    }
}
