//! Summaries and scores of blocks, and a top-k, by their definitions: in f64, rule by rule from the fields of the problems.

use crate::{
    BlockScoreProblem, BlockScoring, Element, HostBlockLists, HostTensor, MASKED_SCORE, Mark, Mask, PoolProblem,
    Pooling, Reduction, Result, TopKProblem,
};

/// Summaries of blocks by their definition, in the order of [`PoolProblem::summaries_shape`].
///
/// # Errors
/// The errors of [`cpu::pool`](crate::cpu::pool).
pub fn pool<T: Element>(problem: &PoolProblem, k: &HostTensor<T>, seq_lens: Option<&[u32]>) -> Result<Vec<f64>> {
    problem.validate_inputs(k, seq_lens)?;
    let [batch_size, seq, heads, dim] = problem.shape.map(|axis| axis as usize);
    let size = problem.block_size as usize;
    let mut summaries = Vec::new();
    for batch in 0..batch_size {
        let len = seq_lens.map_or(seq, |lens| lens[batch] as usize);
        for block in 0..seq.div_ceil(size) {
            for head in 0..heads {
                let channel = |d: usize| -> Vec<f64> {
                    let keys = (block * size..(block + 1) * size).filter(|&key| key < len);
                    keys.map(|key| k.row(batch, key, head)[d].to_f32().into()).collect()
                };
                let fold = |values: &[f64], better: fn(f64, f64) -> f64| {
                    let nan = values.iter().any(|value| value.is_nan());
                    let best = values.iter().copied().reduce(better).unwrap_or(0.0);
                    if nan { f64::NAN } else { best }
                };
                let least = |values: &[f64]| fold(values, f64::min);
                let largest = |values: &[f64]| fold(values, f64::max);
                let mean = |values: &[f64]| values.iter().sum::<f64>() / (values.len().max(1) as f64);
                let mut write = |of: &dyn Fn(&[f64]) -> f64| summaries.extend((0..dim).map(|d| of(&channel(d))));
                match problem.pooling {
                    Pooling::Mean => write(&mean),
                    Pooling::Max => write(&largest),
                    Pooling::Min => write(&least),
                    Pooling::MinMax => {
                        write(&least);
                        write(&largest);
                    }
                }
            }
        }
    }
    Ok(summaries)
}

/// Scores of blocks by their definition, in the order of [`BlockScoreProblem::scores_shape`].
///
/// # Errors
/// The errors of [`cpu::block_scores`](crate::cpu::block_scores).
pub fn block_scores<T: Element>(
    problem: &BlockScoreProblem,
    q: &HostTensor<T>,
    summaries: &HostTensor,
    seq_lens_kv: Option<&[u32]>,
) -> Result<Vec<f64>> {
    problem.validate_inputs(q, summaries, seq_lens_kv)?;
    let shape = problem.shape;
    let [batch_size, num_sets, num_q_blocks, num_blocks] = problem.scores_shape();
    let heads_per_set = shape.num_q_heads / num_sets.max(1);
    let mut scores = Vec::new();
    for batch in 0..batch_size {
        let len = i64::from(seq_lens_kv.map_or(shape.seq_len_kv, |lens| lens[batch as usize]));
        for (set, q_block) in (0..num_sets).flat_map(|set| (0..num_q_blocks).map(move |q_block| (set, q_block))) {
            let queries: Vec<u32> =
                (0..shape.seq_len_q).filter(|query| query / problem.block_size_q == q_block).collect();
            for block in 0..num_blocks {
                let size = i64::from(problem.block_size);
                let wanted = if problem.complete { size - 1 } else { 0 } + i64::from(block) * size;
                let sees = |&&query: &&u32| {
                    let last = match problem.mask {
                        Mask::Full => len - 1,
                        _ => i64::from(query) + len - i64::from(shape.seq_len_q),
                    };
                    wanted <= last && wanted < len
                };
                let mut is_seen = false;
                let mut of_heads = Vec::new();
                for head in set * heads_per_set..(set + 1) * heads_per_set {
                    let kv_head = head / (shape.num_q_heads / shape.num_kv_heads);
                    let summary = summaries.row(batch as usize, block as usize, kv_head as usize);
                    let mut of_rows = Vec::new();
                    for &query in queries.iter().filter(sees) {
                        is_seen = true;
                        of_rows.push(score(
                            problem.scoring,
                            q.row(batch as usize, query as usize, head as usize),
                            summary,
                        ));
                    }
                    of_heads.extend(reduced(problem.rows, &of_rows));
                }
                let seen = reduced(problem.heads, &of_heads).unwrap_or(f64::NAN);
                scores.push(if is_seen { seen } else { MASKED_SCORE.into() });
            }
        }
    }
    Ok(scores)
}

fn score<T: Element>(scoring: BlockScoring, query: &[T], summary: &[f32]) -> f64 {
    let product = |channel: usize, at: usize| f64::from(query[channel].to_f32()) * f64::from(summary[at]);
    let dim = query.len();
    let terms = (0..dim).map(|channel| match scoring {
        BlockScoring::Dot => product(channel, channel),
        BlockScoring::Bound => {
            let [low, high] = [product(channel, channel), product(channel, dim + channel)];
            if low.is_nan() || high.is_nan() { f64::NAN } else { low.max(high) }
        }
    });
    terms.sum()
}

fn reduced(reduction: Reduction, scores: &[f64]) -> Option<f64> {
    let there: Vec<f64> = scores.iter().copied().filter(|score| !score.is_nan()).collect();
    let sum = there.iter().sum::<f64>();
    let largest = there.iter().copied().reduce(f64::max)?;
    Some(match reduction {
        Reduction::Max => largest,
        Reduction::Sum => sum,
        Reduction::Mean => sum / there.len() as f64,
    })
}

/// A top-k by its definition: a sort.
///
/// # Errors
/// The errors of [`cpu::top_k`](crate::cpu::top_k).
pub fn top_k(problem: &TopKProblem, scores: &HostTensor, marks: Option<&[Mark]>) -> Result<HostBlockLists> {
    problem.validate_inputs(scores, marks)?;
    let [batch_size, num_sets, num_q_blocks, n] = problem.shape;
    let mut lists = HostBlockLists::empty(problem.lists_shape());
    for batch in 0..batch_size {
        for (set, q_block) in (0..num_sets).flat_map(|set| (0..num_q_blocks).map(move |q_block| (set, q_block))) {
            let scores = scores.row(batch as usize, set as usize, q_block as usize);
            let row = ((batch * num_sets + set) * num_q_blocks + q_block) as usize * n as usize;
            let mark = |i: usize| marks.map_or(Mark::Free, |marks| marks[row + i]);
            let there: Vec<usize> =
                (0..n as usize).filter(|&i| scores[i].to_bits() != MASKED_SCORE.to_bits()).collect();
            let last = there.last().copied().unwrap_or(0);
            let forced = |&&i: &&usize| {
                mark(i) == Mark::Forced || i < problem.forced_first as usize || i + problem.forced_last as usize > last
            };
            let allowed: Vec<usize> = there.into_iter().filter(|&i| mark(i) != Mark::Forbidden).collect();
            let mut chosen: Vec<usize> = allowed.iter().filter(forced).copied().collect();
            let mut free: Vec<usize> = allowed.iter().filter(|i| !forced(i)).copied().collect();
            free.retain(|&i| scores[i] > MASKED_SCORE); // which no NaN is
            free.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).expect("no NaN is left").then(a.cmp(&b)));
            chosen.extend(free);
            chosen.truncate(problem.k as usize);
            chosen.sort_unstable();
            let blocks: Vec<u32> = chosen.into_iter().map(|i| i as u32 * problem.block_size).collect();
            lists.set_list(batch, set, q_block, &blocks);
        }
    }
    Ok(lists)
}
