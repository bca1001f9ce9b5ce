//! CPU twin of `find_exponents.wgsl`, and the scaling that `factors/scaled.wgsl` does with the exponents.

use half::f16;

use super::walk::Walk;
use crate::{AttentionPlan, Element, HostInputs, HostTensor, Result};

/// CPU twin of the kernel `find_exponents`: the largest exponent, biased by 127, among the finite numbers of each part of each head of q,
/// k and v, `[batch, num_q_heads + 2 * num_kv_heads, parts]`. Empty where the plan scales nothing.
///
/// # Errors
/// The errors of [`HostInputs::validate`].
pub fn find_exponents<T: Element>(plan: &AttentionPlan, inputs: &HostInputs<'_, T>) -> Result<Vec<u32>> {
    inputs.validate(plan.problem())?;
    let shape = plan.problem().shape();
    let parts = plan.exponent_parts() as usize;
    let mut exponents = Vec::new();
    for batch in 0..shape.batch_size {
        let seq_len_kv = inputs.seq_len_kv(batch).min(shape.seq_len_kv);
        let lens = [shape.seq_len_q, seq_len_kv];
        let seen = Walk::range(plan.problem().mask(), lens, &(0..shape.seq_len_q.max(1))).places;
        for (tensor, rows) in [(inputs.q, 0..shape.seq_len_q), (inputs.k, seen.clone()), (inputs.v, seen)] {
            for head in 0..tensor.shape()[2] {
                let rows_each = rows.len().div_ceil(parts.max(1));
                for part in 0..parts {
                    let of_part = rows.clone().skip(part * rows_each).take(rows_each);
                    let elements =
                        of_part.flat_map(|row| tensor.row(batch as usize, row as usize, head as usize)).copied();
                    let magnitudes = elements.map(|x| x.to_f32().abs()).filter(|x| x.is_finite());
                    exponents.push(magnitudes.fold(0.0, f32::max).to_bits() >> 23);
                }
            }
        }
    }
    Ok(exponents)
}

/// Inputs in f16, each head multiplied by a power of two, and the exponents of these powers.
pub(super) struct Scaled {
    q: HostTensor<f16>,
    k: HostTensor<f16>,
    v: HostTensor<f16>,
    /// `[batch, num_q_heads + 2 * num_kv_heads]`.
    exponents: Vec<u32>,
    num_heads: [usize; 2],
}

/// Smaller exponents would make the inverse of a power subnormal or infinite.
const LEAST_EXPONENT: u32 = 15;

impl Scaled {
    /// `None` where the plan scales nothing.
    pub(super) fn new<T: Element>(plan: &AttentionPlan, inputs: &HostInputs<'_, T>) -> Result<Option<Self>> {
        let found = find_exponents(plan, inputs)?;
        if plan.exponent_parts() == 0 {
            return Ok(None);
        }
        let largest = |parts: &[u32]| parts.iter().fold(LEAST_EXPONENT, |largest, &e| largest.max(e));
        let exponents: Vec<u32> = found.chunks_exact(plan.exponent_parts() as usize).map(largest).collect();
        let shape = plan.problem().shape();
        let num_heads = [shape.num_q_heads as usize, shape.num_kv_heads as usize];
        let all = num_heads[0] + 2 * num_heads[1];
        let scaled = |tensor: &HostTensor<T>, first_head: usize| {
            let [_, seq, heads, dim] = tensor.shape().map(|n| n as usize);
            let of = |(i, x): (usize, &T)| {
                let (batch, head) = (i / (seq * heads * dim).max(1), i / dim % heads);
                let power = f32::from_bits((268 - exponents[batch * all + first_head + head]) << 23);
                f16::from_f32(x.to_f32() * power)
            };
            HostTensor::new(tensor.shape(), tensor.data().iter().enumerate().map(of).collect())
        };
        let q = scaled(inputs.q, 0)?;
        let k = scaled(inputs.k, num_heads[0])?;
        let v = scaled(inputs.v, num_heads[0] + num_heads[1])?;
        Ok(Some(Self { q, k, v, exponents, num_heads }))
    }

    pub(super) fn inputs<'a, T>(&'a self, of: &HostInputs<'a, T>) -> HostInputs<'a, f16> {
        HostInputs {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            seq_lens_kv: of.seq_lens_kv,
            blocks: of.blocks,
            tensors: of.tensors,
        }
    }

    fn exponent(&self, batch: u32, head: usize) -> u32 {
        let [num_q_heads, num_kv_heads] = self.num_heads;
        self.exponents[batch as usize * (num_q_heads + 2 * num_kv_heads) + head]
    }

    /// The factor on a head's scores, in place of `scale_log2`.
    pub(super) fn score_scale(&self, batch: u32, head: u32, scale_log2: f32) -> f32 {
        let [num_q_heads, num_kv_heads] = self.num_heads;
        let kv_head = head as usize / (num_q_heads / num_kv_heads);
        let n = self.exponent(batch, head as usize) + self.exponent(batch, num_q_heads + kv_head);
        let bits = scale_log2.to_bits();
        let exponent = (bits >> 23) & 0xff;
        // At most 8 bits each.
        let moved = (exponent as i32 + n as i32 - 282).clamp(1, 254) as u32;
        if exponent == 0 { 0.0 } else { f32::from_bits((bits & 0x807f_ffff) | (moved << 23)) }
    }

    /// The factor on the weighted means of a head's values.
    pub(super) fn out_scale(&self, batch: u32, head: u32) -> f32 {
        let [num_q_heads, num_kv_heads] = self.num_heads;
        let kv_head = head as usize / (num_q_heads / num_kv_heads);
        f32::from_bits((self.exponent(batch, num_q_heads + num_kv_heads + kv_head) - 14) << 23)
    }
}
