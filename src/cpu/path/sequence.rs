//! One sequence of the batch as the blockwise kernels see it, and the partial result they return.

use super::lists::Lists;
use super::modify::Chain;
use super::walk::Walk;
use crate::{AnyHostTensor, AttentionProblem, AttentionShape, Element, HostInputs, LSE_EMPTY, Mask, Sinks};
use core::ops::Range;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// q, k and v of one sequence, `[seq, head, dim]` each, and the keys that its queries see.
pub(super) struct Sequence<'a, T> {
    pub(super) shape: &'a AttentionShape,
    /// `[seq_len_q, num_q_heads, head_dim]`.
    pub(super) q: &'a [T],
    /// `[seq_len_kv, num_kv_heads, head_dim]`; only the keys that count.
    pub(super) k: &'a [T],
    /// `[seq_len_kv, num_kv_heads, head_dim_v]`; only the keys that count.
    pub(super) v: &'a [T],
    /// Factor on q·k: `softmax_scale` where scores are modified, else `softmax_scale * log2(e)`, which makes them exponents of 2.
    pub(super) scale: f32,
    pub(super) chain: Option<Chain<'a>>,
    /// The sink of each query head; empty where rows have none.
    pub(super) sinks: Vec<f32>,
    pub(super) seq_len_kv: u32,
    mask: Mask,
    /// `None` also where lists are ignored because every query attends to all keys that the mask allows.
    pub(super) lists: Option<Lists<'a>>,
}

impl<'a, T: Element> Sequence<'a, T> {
    /// The inputs must have been validated.
    pub(super) fn new(problem: &'a AttentionProblem, inputs: &HostInputs<'a, T>, batch: u32) -> Self {
        let shape = problem.shape();
        let seq_len_kv = inputs.seq_len_kv(batch);
        let part = |data: &'a [T], of: [u32; 4], used: u32| {
            let [_, seq, head, dim] = of.map(|axis| axis as usize);
            &data[batch as usize * seq * head * dim..][..used as usize * head * dim]
        };
        let lists =
            problem.blocks.as_ref().zip(inputs.blocks).map(|(selection, blocks)| Lists { selection, blocks, batch });
        Self {
            shape,
            q: part(inputs.q.data(), problem.q_shape(), shape.seq_len_q),
            k: part(inputs.k.data(), problem.k_shape(), seq_len_kv),
            v: part(inputs.v.data(), problem.v_shape(), seq_len_kv),
            scale: problem.kernel_scale(),
            chain: Chain::new(problem, inputs.tensors, batch, seq_len_kv),
            sinks: sinks_of(problem, inputs.tensors),
            seq_len_kv,
            mask: problem.mask,
            // If the last query block is dense, all blocks before it are.
            lists: lists.filter(|lists| !lists.is_dense(shape, seq_len_kv, shape.seq_len_q.saturating_sub(1))),
        }
    }

    /// The walk of `queries`; they share a list if there are lists.
    pub(super) fn walk(&self, q_head: usize, queries: &Range<usize>) -> Walk {
        match &self.lists {
            None => Walk::range(self.shape, self.mask, self.seq_len_kv, queries),
            Some(lists) => Walk::listed(lists, self.shape, self.mask, self.seq_len_kv, queries, q_head),
        }
    }
}

/// The tensors must have been validated.
fn sinks_of(problem: &AttentionProblem, tensors: &[(&str, AnyHostTensor<'_>)]) -> Vec<f32> {
    let heads = problem.shape().num_q_heads as usize;
    match problem.sinks() {
        None => Vec::new(),
        Some(Sinks::Zero) => vec![0.0; heads],
        Some(Sinks::Learned(_)) => {
            let tensor = tensors.iter().find(|(name, _)| *name == Sinks::NAME);
            tensor.map_or_else(Vec::new, |(_, tensor)| (0..heads).map(|head| tensor.get(head)).collect())
        }
    }
}

/// Widens to f32; both slices have one length.
pub(super) fn widen<T: Element>(from: &[T], to: &mut [f32]) {
    if let Ok(from) = bytemuck::try_cast_slice::<T, f32>(from)
        && T::DTYPE == crate::DType::F32
    {
        to.copy_from_slice(from);
    } else if T::DTYPE == crate::DType::F16 {
        bytemuck::cast_slice::<T, f16>(from).convert_to_f32_slice(to);
    } else {
        for (to, from) in to.iter_mut().zip(bytemuck::cast_slice::<T, bf16>(from)) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }
}

/// The slice itself if it already holds f32.
pub(super) fn as_f32<T: Element>(data: &[T]) -> Option<&[f32]> {
    (T::DTYPE == crate::DType::F32).then(|| bytemuck::cast_slice(data))
}

/// Rows of attention over some of their keys, before the division by the sum of weights.
pub(super) struct Partial {
    /// Largest base-2 score, `[rows]`.
    pub(super) max: Vec<f32>,
    /// Sum of `2^(score - max)`, `[rows]`.
    pub(super) sum: Vec<f32>,
    /// Sum of `2^(score - max) * v`, `[rows, head_dim_v]`.
    pub(super) acc: Vec<f32>,
}

impl Partial {
    /// Adds the same rows over further keys. Not commutative in the last bit: callers keep the order of the keys.
    pub(super) fn absorb(&mut self, other: &Self) {
        let dim = self.acc.len() / self.max.len().max(1);
        for row in 0..self.max.len() {
            let max = self.max[row].max(other.max[row]);
            let (own, others) = ((self.max[row] - max).exp2(), (other.max[row] - max).exp2());
            self.max[row] = max;
            self.sum[row] = own * self.sum[row] + others * other.sum[row];
            let from = &other.acc[row * dim..][..dim];
            for (to, from) in self.acc[row * dim..][..dim].iter_mut().zip(from) {
                *to = own * *to + others * from;
            }
        }
    }

    /// Writes one finished row to `out` `[head_dim_v]` and returns its lse, which leaves the sink out.
    pub(super) fn finish(&self, row: usize, sink: Option<f32>, out: &mut [f32]) -> f32 {
        let sum = self.sum[row];
        // The largest weight is 1, so the sum is 0 only in a row without keys, or with scores of -infinity alone.
        if sum == 0.0 {
            out.fill(0.0);
            return LSE_EMPTY;
        }
        let weight = |sink: f32| (f64::from(sink) * core::f64::consts::LOG2_E - f64::from(self.max[row])).exp2() as f32;
        let total = sum + sink.map_or(0.0, weight);
        let acc = &self.acc[row * out.len()..];
        for (to, acc) in out.iter_mut().zip(acc) {
            *to = acc / total;
        }
        ((f64::from(self.max[row]) + f64::from(sum).log2()) * core::f64::consts::LN_2) as f32
    }
}

/// The row as f32.
#[inline(always)]
pub(super) fn widened<'a, T: Element>(from: &'a [T], copy: &'a mut [f32]) -> &'a [f32] {
    as_f32(from).unwrap_or_else(|| {
        let copy = &mut copy[..from.len()];
        widen(from, copy);
        copy
    })
}
