//! The reference: naive attention in f64, straight from the definition. Shares no code with the paths that it checks.

mod blocks;
mod modify;
mod operators;
mod sees;
mod select;

pub use blocks::{block_scores, pool, top_k};
pub use sees::attended_keys;
pub use select::{Trace, select, select_from, select_traced};

use crate::{AttentionOutput, AttentionProblem, Element, HostInputs, HostTensor, LEAST_SCORE, LSE_EMPTY, Result};
use sees::Sight;

/// Attention by its definition, every sum in f64. Time and memory of one score row at a time; single-threaded.
///
/// # Errors
/// The errors of [`HostInputs::validate`].
pub fn attend<T: Element>(problem: &AttentionProblem, inputs: &HostInputs<'_, T>) -> Result<AttentionOutput> {
    inputs.validate(problem)?;
    let shape = problem.shape();
    let mut out = HostTensor::zeros(problem.out_shape());
    let mut lse = HostTensor::zeros(problem.lse_shape());
    let mut index = 0;
    for batch in 0..shape.batch_size {
        for q_index in 0..shape.seq_len_q {
            for q_head in 0..shape.num_q_heads {
                let (row, row_lse) = attend_row(problem, inputs, batch, q_index, q_head);
                let dim = row.len();
                for (to, from) in out.data_mut()[index * dim..][..dim].iter_mut().zip(row) {
                    *to = from as f32;
                }
                lse.data_mut()[index] = row_lse as f32;
                index += 1;
            }
        }
    }
    Ok(AttentionOutput { out, lse })
}

/// One row of [`attend`]: `(out, lse)` in f64. For checking samples of a large problem.
///
/// # Panics
/// When an index is out of range, or the inputs were not validated.
#[must_use]
pub fn attend_row<T: Element>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    batch: u32,
    q_index: u32,
    q_head: u32,
) -> (Vec<f64>, f64) {
    let shape = problem.shape();
    let kv_head = (q_head / (shape.num_q_heads / shape.num_kv_heads)) as usize;
    let batch_index = batch as usize;
    let q = inputs.q.row(batch_index, q_index as usize, q_head as usize);
    let seq_len_kv = inputs.seq_len_kv(batch);
    let sight = Sight { problem, blocks: inputs.blocks, seq_len_kv };
    let scale = f64::from(problem.softmax_scale());
    let mut scores = Vec::new();
    for key in (0..seq_len_kv).filter(|&key| sight.sees([batch, q_index, q_head], key)) {
        let k = inputs.k.row(batch_index, key as usize, kv_head);
        let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(a.to_f32()) * f64::from(b.to_f32())).sum();
        scores.push((key, modify::modified(problem, inputs, scale * dot, [batch, q_index, q_head, key])));
    }
    // The weight is exactly 0: the key counts as unseen by the row.
    let least = if problem.score_mods().is_empty() { f64::NEG_INFINITY } else { f64::from(LEAST_SCORE) };
    scores.retain(|&(_, score)| score.is_nan() || score > least);
    let mut out = vec![0.0; shape.head_dim_v as usize];
    if scores.is_empty() {
        return (out, f64::from(LSE_EMPTY));
    }
    let max =
        scores.iter().fold(f64::NEG_INFINITY, |max, &(_, score)| if score.is_nan() { score } else { max.max(score) });
    let sum: f64 = scores.iter().map(|&(_, score)| (score - max).exp()).sum();
    // A sink far above the scores makes the total infinite, and out 0.
    let total = sum + modify::sink(problem, inputs, q_head).map_or(0.0, |sink| (sink - max).exp());
    for &(key, score) in &scores {
        let weight = (score - max).exp() / total;
        let v = inputs.v.row(batch_index, key as usize, kv_head);
        for (to, from) in out.iter_mut().zip(v) {
            *to += weight * f64::from(from.to_f32());
        }
    }
    (out, max + sum.ln())
}
