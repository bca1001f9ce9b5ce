//! The merge of partial attention results on the CPU: at once the CPU path and the twin of `merge_splits.wgsl`.

use crate::{Error, LSE_EMPTY, MergeProblem, Result, parallel};

/// Merges partial results of the same rows over disjoint sets of keys: `(out, lse)`.
///
/// `parts_out` is `[num_parts, num_rows, head_dim_v]`, `parts_lse` is `[num_parts, num_rows]`; the result is `[num_rows, head_dim_v]` and
/// `[num_rows]`. A part whose lse is [`LSE_EMPTY`] or -infinity is not read. A row of which every part is empty gives zeros and
/// [`LSE_EMPTY`]; a row with an lse of NaN or +infinity gives NaN.
///
/// # Errors
/// The errors of [`MergeProblem::validate`], and [`Error::Length`] when a slice does not fit the problem.
///
/// # Cost
/// Reads every part once, on all threads of the current rayon pool (feature `cpu`). Allocates the result.
pub fn merge(problem: &MergeProblem, parts_out: &[f32], parts_lse: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
    problem.validate()?;
    let [num_parts, num_rows, dim] = [problem.num_parts, problem.num_rows, problem.head_dim_v].map(|n| n as usize);
    let expected_lse = u64::from(problem.num_parts) * u64::from(problem.num_rows);
    // The product of two 32-bit numbers fits 64 bits; with a third one it may not.
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
    parallel::for_each_row(&mut out, dim, &mut lse, |row, out, lse| {
        let parts = || {
            (0..num_parts)
                .map(|part| part * num_rows + row)
                .filter(|&at| parts_lse[at] > LSE_EMPTY || parts_lse[at].is_nan())
        };
        let max_lse = parts().fold(LSE_EMPTY, |max, at| max.max(parts_lse[at]));
        let mut sum = 0.0f32;
        for at in parts() {
            let weight = (parts_lse[at] - max_lse).exp();
            // Never 0, so that an infinity or a NaN in a part reaches the row.
            let weight = if weight < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { weight };
            sum += weight;
            for (to, from) in out.iter_mut().zip(&parts_out[at * dim..][..dim]) {
                *to = weight.mul_add(*from, *to);
            }
        }
        // The largest weight is 1, so the sum is 0 only in rows without a part.
        if sum == 0.0 {
            out.fill(0.0);
            return;
        }
        out.iter_mut().for_each(|x| *x /= sum);
        // lse = max + ln(sum exp(lse_i - max))
        *lse = max_lse + sum.ln();
    });
    Ok((out, lse))
}
