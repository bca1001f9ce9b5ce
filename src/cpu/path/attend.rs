//! Blockwise attention on the CPU: tiles of query rows against walks, distributed over threads.

use super::deal::Deal;
use super::sequence::{Partial, Sequence};
use super::stream::attend_stream;
use super::tile::{RowTile, Scratch, attend_tile};
use super::tiling::CpuTiling;
use super::walk::{Part, Walk};
use crate::{AttentionOutput, AttentionProblem, Element, HostInputs, HostTensor, Result};
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Attention by tiles of rows and keys with an online softmax, accumulated in f32. Where the problem takes lists of blocks, it attends
/// to these, the sinks and the window; heads that share a list share its gathered keys and values.
///
/// The result has the same bits on every run, for any number of threads and whatever else is in the batch. NaN and infinities in q, k
/// or v affect the rows that see them and no others. A score beyond the range of f32 counts as infinite.
///
/// # Errors
/// The errors of [`HostInputs::validate`].
///
/// # Cost
/// Blocks until done, on all threads of the current rayon pool. Allocates the result and a tile of scores for each thread, never a
/// matrix of `seq_len_q * seq_len_kv`.
pub fn attend<T: Element>(problem: &AttentionProblem, inputs: &HostInputs<'_, T>) -> Result<AttentionOutput> {
    attend_with_tiling(problem, inputs, &CpuTiling::default())
}

/// [`attend`] with given tile sizes. Where there are lists of blocks, `tile_q` follows from them.
///
/// # Errors
/// The errors of [`attend`], and [`Error::Invalid`](crate::Error::Invalid) for a size of 0.
///
/// # Cost
/// The cost of [`attend`].
pub fn attend_with_tiling<T: Element>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    tiling: &CpuTiling,
) -> Result<AttentionOutput> {
    inputs.validate(problem)?;
    tiling.validate()?;
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
            Attend { sequence: &sequence, tiling, deal: Deal::new(&sequence, tiling), pool: &pool }.run(out, lse);
        });
    }
    Ok(AttentionOutput { out, lse })
}

/// Scratch memory of the tasks that run at the same time.
#[derive(Default)]
struct ScratchPool(Mutex<Vec<Scratch>>);

impl ScratchPool {
    fn with<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lock().pop().unwrap_or_default();
        let result = work(&mut scratch);
        lock().push(scratch);
        result
    }
}

/// Attends one sequence that has rows.
struct Attend<'a, T> {
    sequence: &'a Sequence<'a, T>,
    tiling: &'a CpuTiling,
    deal: Deal,
    pool: &'a ScratchPool,
}

impl<T: Element> Attend<'_, T> {
    /// One task for each set of queries and heads in the deal, and for each part of its walk.
    fn run(&self, out: &mut [f32], lse: &mut [f32]) {
        let (shape, deal) = (self.sequence.shape, &self.deal);
        let [group, dim_v] = [shape.group_size(), shape.head_dim_v].map(|n| n as usize);
        let num_kv_heads = deal.heads_per_task / deal.heads_per_walk;
        deal.cut(shape, out, lse).into_par_iter().with_max_len(1).for_each(|(queries, out, lse)| {
            deal.sets(shape, out, lse).into_par_iter().enumerate().with_max_len(1).for_each(|(set, mut slices)| {
                let first_head = set * deal.heads_per_task;
                let walk = self.sequence.walk(first_head, &queries);
                let num_heads = deal.heads_per_walk;
                let rows = queries.start * num_heads..queries.end * num_heads;
                // There is more than one turn only when a group alone is larger than a tile.
                for start in rows.clone().step_by(deal.tile_rows) {
                    let rows = start..rows.end.min(start.saturating_add(deal.tile_rows));
                    let tile = RowTile { kv_head: first_head / group, first_head, num_heads, rows };
                    let partial = self.attend_parts(&tile, num_kv_heads, &walk);
                    let rows = (0..num_kv_heads).flat_map(|kv_head| tile.rows.clone().map(move |row| (kv_head, row)));
                    for (at, (kv_head, row)) in rows.enumerate() {
                        let (q_index, g) = (row / num_heads, kv_head * num_heads + row % num_heads);
                        let (out, lse) = &mut slices[q_index - queries.start];
                        let sink = self.sequence.sinks.get(first_head + g).copied();
                        lse[g] = partial.finish(at, sink, &mut out[g * dim_v..][..dim_v]);
                    }
                }
            });
        });
    }

    /// The rows of `tile`, and the same rows of further KV heads where the tile streams.
    fn attend_parts(&self, tile: &RowTile, num_kv_heads: usize, walk: &Walk) -> Partial {
        let tile_kv = self.tiling.tile_kv as usize;
        let attend = |part: &Part<'_>| {
            if tile.rows.len() <= self.deal.stream_rows {
                attend_stream(self.sequence, tile, num_kv_heads, walk, part, tile_kv)
            } else {
                self.pool.with(|scratch| attend_tile(self.sequence, tile, walk, part, tile_kv, scratch))
            }
        };
        match &*walk.parts(self.tiling, self.deal.wanted_parts, num_kv_heads) {
            [part] => attend(part),
            parts => {
                let partials = parts.par_iter().with_max_len(1).map(attend).collect();
                fold(partials).unwrap_or_else(|| attend(&parts[0]))
            }
        }
    }
}

/// Merges partial results in the order of their keys; `None` when there are none.
fn fold(partials: Vec<Partial>) -> Option<Partial> {
    partials.into_iter().reduce(|mut whole, next| {
        whole.absorb(&next);
        whole
    })
}
