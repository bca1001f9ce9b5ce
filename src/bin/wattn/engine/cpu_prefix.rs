//! Prefix attention with everything in host memory.

use wattn::{AttentionOutput, AttentionProblem, AttentionShape, DType, Element, HostInputs, HostTensor, Mask, Result};

use super::BYTES;

/// Keys and values of a text in host memory.
pub(crate) struct CpuPrefix<'a, T> {
    engine: &'a wattn::Engine,
    keys: &'a [HostTensor<T>],
    values: HostTensor<T>,
    softmax_scale: f32,
}

impl<'a, T: Element> CpuPrefix<'a, T> {
    pub(super) fn new(
        engine: &'a wattn::Engine,
        keys: &'a [HostTensor<T>],
        values: HostTensor<T>,
        softmax_scale: f32,
    ) -> Self {
        Self { engine, keys, values, softmax_scale }
    }

    pub(super) fn attend_chunk(&self, q: &HostTensor<T>, chunk_start: u32) -> Result<AttentionOutput> {
        let [_, len, heads, head_dim] = q.shape();
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q: len,
            seq_len_kv: self.values.shape()[1],
            num_q_heads: 1,
            num_kv_heads: 1,
            head_dim,
            head_dim_v: BYTES,
        };
        let problem = AttentionProblem::new(shape, T::DTYPE)
            .with_out_dtype(DType::F32)
            .with_mask(Mask::Causal)
            .with_softmax_scale(self.softmax_scale);
        // Keys past the chunk do not count, so nothing is copied: the mask is aligned to this length.
        let seq_lens_kv = [chunk_start + len];
        // Heads are computed one by one because they share the values, which a head axis would have to repeat.
        let mut whole =
            AttentionOutput::new(HostTensor::zeros([1, len, heads, BYTES]), HostTensor::zeros([1, len, heads, 1]));
        for (head, k) in self.keys.iter().enumerate() {
            let rows = (0..len as usize).flat_map(|row| q.row(0, row, head)).copied().collect();
            let q = HostTensor::new([1, len, 1, head_dim], rows)?;
            let inputs = HostInputs::new(&q, k, &self.values).with_seq_lens_kv(&seq_lens_kv);
            let part = self.engine.attend(&problem, &inputs).wait()?;
            interleave(whole.out.data_mut(), part.out.data(), head, heads as usize, BYTES as usize);
            interleave(whole.lse.data_mut(), part.lse.data(), head, heads as usize, 1);
        }
        Ok(whole)
    }
}

/// Copies the rows of one head to their places among all heads.
pub(super) fn interleave(whole: &mut [f32], part: &[f32], head: usize, heads: usize, dim: usize) {
    for (to, from) in whole.chunks_exact_mut(heads * dim).zip(part.chunks_exact(dim)) {
        to[head * dim..][..dim].copy_from_slice(from);
    }
}
