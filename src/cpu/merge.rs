//! CPU path of the merge of partial attention results.

use crate::{Error, LSE_EMPTY, MergeProblem, Result};
use rayon::prelude::*;

/// Merges partial results of the same rows over disjoint sets of keys: `(out, lse)`.
///
/// `parts_out` is `[num_parts, num_rows, head_dim_v]`, `parts_lse` is `[num_parts, num_rows]`; the result is
/// `[num_rows, head_dim_v]` and `[num_rows]`. A part whose lse is [`LSE_EMPTY`] is not read. A row with no other part
/// gives zeros and [`LSE_EMPTY`].
///
/// # Errors
/// What [`MergeProblem::validate`] returns, and [`Error::Length`] when a slice does not fit the problem.
///
/// # Cost
/// Reads every part once, on all threads of the current rayon pool. Allocates the result.
pub fn merge(problem: &MergeProblem, parts_out: &[f32], parts_lse: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
    problem.validate()?;
    let [num_parts, num_rows, dim] = [problem.num_parts, problem.num_rows, problem.head_dim_v].map(|n| n as usize);
    let expected_lse = u64::from(problem.num_parts) * u64::from(problem.num_rows);
    // Two 32-bit numbers fit 64 bits; a third one may not.
    let expected_out = expected_lse.saturating_mul(problem.head_dim_v.into());
    for (tensor, given, expected) in
        [("parts_out", parts_out.len(), expected_out), ("parts_lse", parts_lse.len(), expected_lse)]
    {
        if given as u64 != expected {
            return Err(Error::Length { tensor, expected, actual: given as u64 });
        }
    }
    let mut out = vec![0.0; num_rows * dim];
    let mut lse = vec![LSE_EMPTY; num_rows];
    out.par_chunks_mut(dim).zip(&mut lse).enumerate().for_each(|(row, (out, lse))| {
        let parts = || (0..num_parts).map(|part| part * num_rows + row).filter(|&at| parts_lse[at] != LSE_EMPTY);
        let max = parts().fold(f64::NEG_INFINITY, |max, at| max.max(f64::from(parts_lse[at])));
        if parts().next().is_none() {
            return;
        }
        // lse = max + ln(sum exp(lse_i - max)); f64, because lse may be large and its error is that of the weights.
        let weight = |at: usize| (f64::from(parts_lse[at]) - max).exp();
        let sum: f64 = parts().map(weight).sum();
        for at in parts() {
            let weight = (weight(at) / sum) as f32;
            for (to, from) in out.iter_mut().zip(&parts_out[at * dim..][..dim]) {
                *to += weight * from;
            }
        }
        *lse = (max + sum.ln()) as f32;
    });
    Ok((out, lse))
}
