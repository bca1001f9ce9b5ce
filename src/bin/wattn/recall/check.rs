//! Rows of attention recomputed in f64, and the error allowed in the fast ones.

use wattn::{AttentionProblem, AttentionShape, DType, Element, HostInputs, HostTensor, Mask, cpu::oracle};

use super::context::{self, Encoder};
use crate::engine::{BYTES, one_hot};
use crate::failure::Failure;

/// Rows that are checked.
const SAMPLES: usize = 16;

/// Keys whose one-hot rows are held at once. Blocks merge exactly through their lse, and a whole text of one-hot rows
/// would be a gigabyte.
const BLOCK: usize = 1 << 14;

/// The allowed error, as a multiple of independent roundings.
const SAFETY: f64 = 4.0;

/// A row of one head as the engine computed it.
pub(crate) struct Sample {
    pub(crate) row: usize,
    pub(crate) head: usize,
    pub(crate) out: Vec<f32>,
    pub(crate) lse: f32,
}

/// The sampled rows against the oracle.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Check {
    pub(crate) rows: usize,
    /// Largest error of an element of out or of an lse.
    pub(crate) largest_error: f64,
    /// Bound of the row where the error comes closest to it.
    pub(crate) bound: f64,
    pub(crate) ok: bool,
}

/// Rows spread evenly from the first to the last, heads in turn.
pub(crate) fn sampled_rows(rows: usize, heads: usize) -> Vec<(usize, usize)> {
    let count = SAMPLES.min(rows);
    let row = |i: usize| if count > 1 { i * (rows - 1) / (count - 1) } else { 0 };
    (0..count).map(|i| (row(i), i % heads)).collect()
}

/// The inputs of a row of attention.
#[derive(Clone, Copy)]
pub(crate) struct Checker<'a, T> {
    pub(crate) text: &'a [u8],
    pub(crate) keys: &'a [HostTensor<T>],
    pub(crate) encoders: &'a [Encoder],
    pub(crate) softmax_scale: f32,
}

impl<T: Element> Checker<'_, T> {
    pub(crate) fn check(&self, samples: &[Sample]) -> Result<Check, Failure> {
        let mut check = Check { rows: samples.len(), largest_error: 0.0, bound: f64::INFINITY, ok: true };
        let mut closest = f64::NEG_INFINITY;
        for sample in samples {
            let (out, lse) = self.oracle_row(sample.row, sample.head)?;
            let errors = sample.out.iter().zip(&out).map(|(&fast, exact)| (f64::from(fast) - exact).abs());
            let error = errors.fold((f64::from(sample.lse) - lse).abs(), worse);
            let bound = self.bound(sample.row + 1, lse);
            check.ok &= error <= bound;
            check.largest_error = worse(check.largest_error, error);
            if worse(error / bound, closest).total_cmp(&closest).is_gt() {
                (closest, check.bound) = (error / bound, bound);
            }
        }
        Ok(check)
    }

    /// Error that f32 arithmetic explains. A sum of n terms is off by about `sqrt(n)` roundings; the roundings of a score are relative to
    /// the largest score, which is at most lse, and a weight has the same relative error through `exp`. Weights may be rounded to the
    /// storage type, because hardware that multiplies matrices reads them in it.
    fn bound(&self, keys: usize, lse: f64) -> f64 {
        let head_dim = self.keys.first().map_or(0, |k| k.shape()[3]);
        let sums = f64::from(head_dim).sqrt() * lse.abs().max(1.0) + (keys as f64).sqrt() + 8.0;
        let weights = if T::DTYPE == DType::F32 { 0.0 } else { T::DTYPE.unit_roundoff() };
        SAFETY * DType::F32.unit_roundoff() * sums + weights
    }

    /// `(out, lse)` of one row in f64.
    fn oracle_row(&self, row: usize, head: usize) -> Result<(Vec<f64>, f64), Failure> {
        let q = context::queries::<T>(&self.encoders[head..=head], self.text, row, row + 1)?;
        let k = &self.keys[head];
        let head_dim = k.shape()[3];
        let mut merged = (vec![0.0; BYTES as usize], f64::NEG_INFINITY);
        for start in (0..=row).step_by(BLOCK) {
            let end = (start + BLOCK).min(row + 1);
            let len = (end - start) as u32;
            let rows = k.data()[start * head_dim as usize..end * head_dim as usize].to_vec();
            let k = HostTensor::new([1, len, 1, head_dim], rows)?;
            let v = one_hot(&self.text[start..end])?;
            let shape = AttentionShape {
                batch_size: 1,
                seq_len_q: 1,
                seq_len_kv: len,
                num_q_heads: 1,
                num_kv_heads: 1,
                head_dim,
                head_dim_v: BYTES,
            };
            let problem =
                AttentionProblem::new(shape, T::DTYPE).with_mask(Mask::Full).with_softmax_scale(self.softmax_scale);
            let inputs = HostInputs::new(&q, &k, &v);
            inputs.validate(&problem)?;
            merge(&mut merged, oracle::attend_row(&problem, &inputs, 0, 0, 0));
        }
        Ok(merged)
    }

    /// The softmax weights of one row over keys `0..=row`, averaged over the heads, in f64 arithmetic.
    pub(crate) fn weights(&self, row: usize) -> Result<Vec<f64>, Failure> {
        let q = context::queries::<T>(self.encoders, self.text, row, row + 1)?;
        let mut average = vec![0.0; row + 1];
        for (head, k) in self.keys.iter().enumerate() {
            let q: Vec<f64> = q.row(0, 0, head).iter().map(|x| f64::from(x.to_f32())).collect();
            let score = |key| {
                let k = k.row(0, key, 0).iter().map(|x| f64::from(x.to_f32()));
                f64::from(self.softmax_scale) * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>()
            };
            let scores: Vec<f64> = (0..=row).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            for (to, score) in average.iter_mut().zip(scores) {
                *to += (score - max).exp() / total / self.keys.len() as f64;
            }
        }
        Ok(average)
    }
}

/// The larger error, and NaN if one is: `max` would lose it.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Attention over two sets of keys from attention over each.
fn merge((out, lse): &mut (Vec<f64>, f64), (other, other_lse): (Vec<f64>, f64)) {
    let max = lse.max(other_lse);
    let merged = max + ((*lse - max).exp() + (other_lse - max).exp()).ln();
    let (a, b) = ((*lse - merged).exp(), (other_lse - merged).exp());
    for (to, from) in out.iter_mut().zip(other) {
        *to = a * *to + b * from;
    }
    *lse = merged;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_distinct_and_reach_both_ends() {
        for rows in [1, 2, 15, 16, 17, 1000] {
            let rows_sampled: Vec<usize> = sampled_rows(rows, 3).iter().map(|&(row, _)| row).collect();
            assert_eq!(rows_sampled[0], 0);
            assert_eq!(*rows_sampled.last().unwrap(), rows - 1);
            assert!(rows_sampled.windows(2).all(|pair| pair[0] < pair[1]), "{rows}");
        }
    }

    #[test]
    fn a_merge_is_the_softmax_over_both() {
        let state = |score: f64, value: f64| (vec![value], score);
        let mut merged = (vec![0.0], f64::NEG_INFINITY);
        for (score, value) in [(1.0, 10.0), (3.0, 20.0), (2.0, 30.0)] {
            merge(&mut merged, state(score, value));
        }
        let total: f64 = [1.0f64, 3.0, 2.0].iter().map(|score| score.exp()).sum();
        let out = (1f64.exp() * 10.0 + 3f64.exp() * 20.0 + 2f64.exp() * 30.0) / total;
        assert!((merged.0[0] - out).abs() < 1e-12);
        assert!((merged.1 - total.ln()).abs() < 1e-12);
    }

    #[test]
    fn wrong_and_missing_numbers_fail_the_check() {
        let text = b"to be or not to be, that is the question";
        let encoders = [Encoder::new(context::heads(1)[0], 0, 64, 1)];
        let keys = [encoders[0].keys::<f32>(text).unwrap()];
        let checker = Checker { text, keys: &keys, encoders: &encoders, softmax_scale: 1.0 / 64.0 };
        let (out, lse) = checker.oracle_row(20, 0).unwrap();
        let mut sample = Sample { row: 20, head: 0, out: out.iter().map(|&x| x as f32).collect(), lse: lse as f32 };
        assert!(checker.check(std::slice::from_ref(&sample)).unwrap().ok);
        sample.out[usize::from(b't')] += 1e-3;
        assert!(!checker.check(std::slice::from_ref(&sample)).unwrap().ok);
        sample.out[usize::from(b't')] = f32::NAN;
        assert!(!checker.check(std::slice::from_ref(&sample)).unwrap().ok);
    }
}
