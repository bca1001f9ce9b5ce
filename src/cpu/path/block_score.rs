//! Scores of blocks of keys by their summaries: `shaders/score_blocks.wgsl` on the CPU.

use rayon::prelude::*;

use crate::{BlockScoreProblem, BlockScoring, Element, HostTensor, MASKED_SCORE, Mask, Reduction, Result};

/// Scores of blocks of keys. `seq_lens_kv`: the keys of each sequence that count; `None`: all of them.
///
/// # Errors
/// The errors of [`BlockScoreProblem::validate`]; [`Error::DType`](crate::Error::DType), [`Error::Shape`](crate::Error::Shape),
/// [`Error::Length`](crate::Error::Length) or [`Error::Invalid`](crate::Error::Invalid) where a tensor does not fit the problem.
pub fn block_scores<T: Element>(
    problem: &BlockScoreProblem,
    q: &HostTensor<T>,
    summaries: &HostTensor,
    seq_lens_kv: Option<&[u32]>,
) -> Result<HostTensor> {
    problem.validate_inputs(q, summaries, seq_lens_kv)?;
    let shape = problem.scores_shape();
    let [_, num_sets, num_q_blocks, num_blocks] = shape.map(|axis| axis as usize);
    let heads_per_set = problem.granularity.heads_per_set(&problem.shape) as usize;
    let group_size = problem.shape.group_size() as usize;
    let mut scores = HostTensor::zeros(shape);
    scores.data_mut().par_chunks_mut(num_blocks.max(1)).enumerate().for_each(|(list, scores)| {
        let (batch, set, q_block) =
            (list / num_q_blocks / num_sets, list / num_q_blocks % num_sets, list % num_q_blocks);
        let seq_len_kv = seq_lens_kv.map_or(problem.shape.seq_len_kv, |lens| lens[batch]);
        let first = q_block as u32 * problem.block_size_q;
        let queries = first..problem.shape.seq_len_q.min(first + problem.block_size_q);
        let mut query = vec![0.0; problem.shape.head_dim as usize];
        let mut total = vec![Tally::default(); num_blocks];
        let mut visible = 0;
        for head in set * heads_per_set..(set + 1) * heads_per_set {
            let mut of_head = vec![Tally::default(); num_blocks];
            for i in queries.clone() {
                let seen = blocks_seen(problem, i, seq_len_kv);
                visible = visible.max(seen);
                let stored = q.row(batch, i as usize, head);
                query.iter_mut().zip(stored).for_each(|(to, from)| *to = from.to_f32());
                for (block, tally) in of_head[..seen].iter_mut().enumerate() {
                    tally.add(
                        score(problem.scoring, &query, summaries.row(batch, block, head / group_size)),
                        problem.rows,
                    );
                }
            }
            for (total, of_head) in total.iter_mut().zip(of_head) {
                of_head.reduced(problem.rows).into_iter().for_each(|score| total.add(score, problem.heads));
            }
        }
        for (block, (score, total)) in scores.iter_mut().zip(total).enumerate() {
            *score = if block < visible { total.reduced(problem.heads).unwrap_or(f32::NAN) } else { MASKED_SCORE };
        }
    });
    Ok(scores)
}

/// The number of blocks, from the first on, that a query sees.
fn blocks_seen(problem: &BlockScoreProblem, query: u32, seq_len_kv: u32) -> usize {
    let keys = match problem.mask {
        Mask::Full => i64::from(seq_len_kv),
        _ => i64::from(query) + 1 + i64::from(seq_len_kv) - i64::from(problem.shape.seq_len_q),
    };
    let needed = i64::from(problem.needed_key());
    let blocks = (keys.max(0) - needed).max(0) as u64; // keys whose block they may begin, or complete
    blocks.div_ceil(problem.block_size.into()) as usize
}

fn score(scoring: BlockScoring, query: &[f32], summary: &[f32]) -> f32 {
    let (low, high) = summary.split_at(query.len());
    match scoring {
        BlockScoring::Dot => query.iter().zip(low).map(|(q, low)| q * low).sum(),
        BlockScoring::Bound => {
            query.iter().zip(low.iter().zip(high)).map(|(q, (low, high))| larger(q * low, q * high)).sum()
        }
    }
}

/// NaN where either argument is.
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// The scores so far, reduced.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    value: f32,
    count: u32,
}

impl Tally {
    fn add(&mut self, score: f32, reduction: Reduction) {
        if score.is_nan() {
            return;
        }
        self.value = match reduction {
            Reduction::Max if self.count == 0 => score,
            Reduction::Max => self.value.max(score),
            Reduction::Sum | Reduction::Mean => self.value + score,
        };
        self.count += 1;
    }

    fn reduced(self, reduction: Reduction) -> Option<f32> {
        let value = if reduction == Reduction::Mean { self.value / self.count as f32 } else { self.value };
        (self.count > 0).then_some(value)
    }
}
