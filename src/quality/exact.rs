//! The blocks that a search would find by looking at every key.

use core::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::{Candidates, lists};
use crate::{Element, HostBlockLists, Mask, QuerySampling, Result, SelectionInputs, SelectionProblem};

/// A number below every score.
const MASKED: f32 = -3.0e38;

/// Number of keys multiplied at a time: scores of 64 queries then take 256 KiB.
const TILE_KV: usize = 1024;

/// The best blocks for every query block, by the scores of all candidates: the lists that the search of `problem` approximates.
///
/// A block's score is the largest `q·k` over the queries and keys that the search samples or averages in its last stage, over the heads that
/// share the list, under the same mask. Blocks rank by score, then by position; a list has as many as it has room for. Blocks that no query
/// may see are not listed.
///
/// # Errors
/// The errors of [`SelectionInputs::validate`].
///
/// # Cost
/// The cost of the scores of dense attention, on all processors.
pub fn exact_blocks<T: Element>(problem: &SelectionProblem, inputs: &SelectionInputs<'_, T>) -> Result<HostBlockLists> {
    inputs.validate(problem)?;
    let indices_shape = problem.blocks().indices_shape(problem.shape());
    let all = lists(indices_shape);
    let best: Vec<Vec<u32>> = all.par_iter().map(|&list| best_blocks(problem, inputs, list)).collect();
    let mut result = HostBlockLists::empty(indices_shape);
    for (&(batch, set, q_block), list) in all.iter().zip(&best) {
        result.set_list(batch, set, q_block, list);
    }
    Ok(result)
}

/// The share of the best blocks that the lists hold; made by [`block_recall`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRecall {
    shape: [u32; 3],
    found: Vec<u32>,
    wanted: Vec<u32>,
}

impl BlockRecall {
    /// `[batch, set, q_block]`.
    #[must_use]
    pub const fn shape(&self) -> [u32; 3] {
        self.shape
    }

    /// Best blocks that each list holds, `[batch, set, q_block]`.
    #[must_use]
    pub fn found(&self) -> &[u32] {
        &self.found
    }

    /// Number of best blocks that each list should hold, `[batch, set, q_block]`: 0 for query blocks that are dense.
    #[must_use]
    pub fn wanted(&self) -> &[u32] {
        &self.wanted
    }

    /// Recall of each list, `[batch, set, q_block]`; 1 where the list should hold nothing.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        self.found.iter().zip(&self.wanted).map(|(&found, &wanted)| share(found.into(), wanted.into())).collect()
    }

    /// Recall over all lists together.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let sum = |counts: &[u32]| counts.iter().map(|&count| u64::from(count)).sum();
        share(sum(&self.found), sum(&self.wanted))
    }

    /// The smallest recall of a list; 1 if there is none.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.values().into_iter().fold(1.0, f64::min)
    }
}

fn share(found: u64, wanted: u64) -> f64 {
    if wanted == 0 { 1.0 } else { found as f64 / wanted as f64 }
}

impl core::fmt::Display for BlockRecall {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "recall {:.4}, worst list {:.4}", self.mean(), self.min())
    }
}

/// The share of the [`exact_blocks`] that each list of `blocks` holds.
///
/// # Errors
/// The errors of [`SelectionInputs::validate`] and [`HostBlockLists::validate`].
///
/// # Cost
/// The cost of [`exact_blocks`].
pub fn block_recall<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
    blocks: &HostBlockLists,
) -> Result<BlockRecall> {
    inputs.validate(problem)?;
    blocks.validate(&problem.blocks(), problem.shape(), inputs.seq_lens_kv)?;
    let exact = exact_blocks(problem, inputs)?;
    let [batch_size, sets, q_blocks, _] = exact.shape();
    let found = |&(batch, set, q_block): &(u32, u32, u32)| {
        let list = blocks.list(batch, set, q_block);
        let held = exact.list(batch, set, q_block).iter().filter(|start| list.binary_search(start).is_ok());
        held.count() as u32 // at most max_blocks
    };
    Ok(BlockRecall {
        shape: [batch_size, sets, q_blocks],
        found: lists(exact.shape()).iter().map(found).collect(),
        wanted: exact.block_counts().to_vec(),
    })
}

/// One list of [`exact_blocks`].
fn best_blocks<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
    (batch, set, q_block): (u32, u32, u32),
) -> Vec<u32> {
    let (shape, blocks) = (problem.shape(), problem.blocks());
    let candidates = Candidates::new(problem, inputs.seq_len_kv(batch), q_block);
    let heads_per_set = problem.granularity.heads_per_set(shape);
    let heads = set * heads_per_set..(set + 1) * heads_per_set;
    let union = problem.method().selector().unites_heads();
    let (groups, room): (Vec<Range<u32>>, u32) = if union {
        (heads.map(|head| head..head + 1).collect(), blocks.max_blocks / heads_per_set)
    } else {
        (vec![heads], blocks.max_blocks)
    };
    let mut best = Vec::new();
    for heads in groups {
        best.extend(top(&scores(problem, inputs, batch, &candidates, heads), room as usize));
    }
    best.sort_unstable();
    best.dedup();
    best.iter().map(|block| candidates.start + block * blocks.block_size).collect()
}

/// The best `room` blocks among those with a score: score descending, then position ascending.
fn top(scores: &[f32], room: usize) -> Vec<u32> {
    // Block numbers come from a u32.
    let mut ranked: Vec<u32> = (0..scores.len() as u32).filter(|&block| scores[block as usize] > MASKED).collect();
    if ranked.len() > room {
        // No score is NaN: the maximum drops NaN. -0 equals +0 here, as required.
        let score = |block: u32| scores[block as usize];
        ranked.select_nth_unstable_by(room, |&a, &b| {
            score(b).partial_cmp(&score(a)).unwrap_or(core::cmp::Ordering::Equal).then(a.cmp(&b))
        });
        ranked.truncate(room);
    }
    ranked
}

/// The score of every candidate block, the largest over `heads`.
fn scores<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
    batch: u32,
    candidates: &Candidates,
    heads: Range<u32>,
) -> Vec<f32> {
    let shape = problem.shape();
    let (block_size, dim) = (problem.blocks().block_size as usize, shape.head_dim as usize);
    let seq_len_kv = inputs.seq_len_kv(batch) as usize;
    let stride_k = problem.method().selector().key_stride() as usize;
    let samples = block_size / stride_k;
    let queries: Vec<(usize, Queries)> = heads
        .map(|head| ((head / shape.group_size()) as usize, Queries::new(problem, inputs, batch, candidates, head)))
        .collect();
    let mut scores = vec![MASKED; candidates.len as usize];
    let blocks_per_tile = (TILE_KV / samples).max(1);
    let buffers = || (Vec::new(), Vec::new());
    scores.par_chunks_mut(blocks_per_tile).enumerate().for_each_init(buffers, |(keys, products), (tile, scores)| {
        let first = tile * blocks_per_tile;
        let key = |sample: usize| {
            let (block, offset) = (first + sample / samples, sample % samples * stride_k + stride_k - 1);
            candidates.start as usize + block * block_size + offset
        };
        // Keys ascend, so keys past the sequence are the last ones.
        let num_keys = (0..scores.len() * samples).take_while(|&sample| key(sample) < seq_len_kv).count();
        let mut copied = None;
        for (kv_head, queries) in &queries {
            if copied != Some(*kv_head) {
                keys.clear();
                for sample in 0..num_keys {
                    let from = inputs.k.row(batch as usize, key(sample), *kv_head);
                    keys.extend(from.iter().map(|x| x.to_f32()));
                }
                copied = Some(*kv_head);
            }
            let num_queries = queries.reach.len();
            products.resize(num_keys * num_queries, 0.0f32);
            matmul(
                MatMut::from_column_major_slice_mut(&mut *products, num_queries, num_keys),
                Accum::Replace,
                MatRef::from_row_major_slice(&queries.rows, num_queries, dim),
                MatRef::from_column_major_slice(&*keys, dim, num_keys),
                1.0,
                Par::Seq,
            );
            for (sample, products) in products.chunks_exact(num_queries).enumerate() {
                let seen_from = queries.reach.partition_point(|&reach| reach < key(sample) as i64);
                let score = &mut scores[sample / samples];
                *score = products[seen_from..].iter().fold(*score, |max, &product| max.max(product));
            }
        }
    });
    scores
}

/// The query vectors of one head that score keys.
struct Queries {
    /// `[queries, head_dim]`, scaled.
    rows: Vec<f32>,
    /// The last key that each query may look at, ascending.
    reach: Vec<i64>,
}

impl Queries {
    fn new<T: Element>(
        problem: &SelectionProblem,
        inputs: &SelectionInputs<'_, T>,
        batch: u32,
        candidates: &Candidates,
        head: u32,
    ) -> Self {
        let row = |query: u32| inputs.q.row(batch as usize, query as usize, head as usize);
        let (scale, block) = (problem.selection_scale(), candidates.queries.clone());
        let (mut rows, mut reach) = (Vec::new(), Vec::new());
        let selector = problem.method().selector();
        match selector.sampling(selector.num_stages() - 1) {
            QuerySampling::Stride(stride) => {
                let last_key = i64::from(inputs.seq_len_kv(batch)) - 1;
                // The last query of each stride; in a shorter block the last query.
                let stride = stride.min(block.end - block.start);
                for query in (block.start + stride - 1..block.end).step_by(stride as usize) {
                    rows.extend(row(query).iter().map(|x| x.to_f32() * scale));
                    reach.push(match problem.mask() {
                        Mask::Full => last_key,
                        // `validate` rejects the other masks.
                        Mask::Causal | Mask::Window { .. } | Mask::CausalAt { .. } => {
                            let position = candidates.p_min + i64::from(query - block.start);
                            position - i64::from(problem.candidate_window())
                        }
                    });
                }
            }
            QuerySampling::Mean(stride) => {
                for first in block.clone().step_by(stride as usize) {
                    let averaged = first..first.saturating_add(stride).min(block.end);
                    let count = averaged.len() as f32;
                    let mut sum = vec![0.0f32; row(first).len()];
                    for query in averaged {
                        sum.iter_mut().zip(row(query)).for_each(|(sum, x)| *sum += x.to_f32());
                    }
                    rows.extend(sum.iter().map(|sum| sum / count * scale));
                    reach.push(candidates.p_min.max(0));
                }
            }
        }
        Self { rows, reach }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_position() {
        let mut best = top(&[1.0, 0.0, 3.0, -0.0, MASKED, 3.0], 4);
        best.sort_unstable();
        assert_eq!(best, [0, 1, 2, 5]);
        assert_eq!(top(&[2.0, MASKED], 4), [0]);
    }
}
