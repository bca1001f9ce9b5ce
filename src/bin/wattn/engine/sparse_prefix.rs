//! Prefix attention to selected blocks, with everything in host memory between the calls.

use core::ops::Range;
use std::borrow::Cow;

use wattn::{
    AttentionOutput, AttentionProblem, AttentionShape, BlockListSpec, DType, Element, Granularity, HostBlockLists,
    HostInputs, HostTensor, Mask, Result, SelectionInputs, SelectionProblem,
};

use super::cpu_prefix::interleave;
use super::{BYTES, Engine, one_hot};
use crate::args::sparse::Selector;

/// Keys and values of a text, and the method that finds blocks of keys for each chunk of queries.
pub(crate) struct SparsePrefix<'a, T: Element> {
    engine: &'a Engine,
    selector: &'a Selector,
    keys: &'a [HostTensor<T>],
    /// The keys of the heads that share lists, side by side: one entry for each set.
    sets: Vec<Cow<'a, HostTensor<T>>>,
    values: HostTensor<T>,
    softmax_scale: f32,
}

/// The results of attention to selected blocks for a chunk of queries.
pub(crate) struct SparseChunk {
    pub(crate) output: AttentionOutput,
    pub(crate) sets: Vec<SetLists>,
}

/// The lists that a set of heads shares.
pub(crate) struct SetLists {
    /// `[1, 1, q_block, entry]`.
    pub(crate) blocks: HostBlockLists,
    /// Their sizes and rules, for one head.
    pub(crate) selection: BlockListSpec,
}

impl<'a, T: Element> SparsePrefix<'a, T> {
    pub(crate) fn new(
        engine: &'a Engine,
        selector: &'a Selector,
        keys: &'a [HostTensor<T>],
        bytes: &[u8],
        softmax_scale: f32,
    ) -> Result<Self> {
        let problem = Self::validate(selector, keys, softmax_scale)?;
        // Every head has keys of its own, so that a KV head is a query head.
        let sets = match problem.blocks().granularity {
            Granularity::Layer if keys.len() > 1 => vec![Cow::Owned(side_by_side(keys)?)],
            _ => keys.iter().map(Cow::Borrowed).collect(),
        };
        Ok(Self { engine, selector, keys, sets, values: one_hot(bytes)?, softmax_scale })
    }

    /// Whether these keys fit the method, checked without computing.
    pub(crate) fn validate(
        selector: &Selector,
        keys: &[HostTensor<T>],
        softmax_scale: f32,
    ) -> Result<SelectionProblem> {
        let len = keys.first().map_or(0, |k| k.shape()[1]);
        let problem = selector.problem(shape(keys, len, keys.len()), T::DTYPE, softmax_scale);
        problem.validate()?;
        Ok(problem)
    }

    /// Causal attention of the queries at positions `chunk_start..chunk_start + len` to selected blocks of the keys from
    /// 0. Shapes as in [`PrefixAttention::attend_chunk`](super::PrefixAttention::attend_chunk).
    pub(crate) fn attend_chunk(&self, q: &HostTensor<T>, chunk_start: u32) -> Result<SparseChunk> {
        let [_, len, heads, _] = q.shape();
        // Keys past the chunk do not count, so nothing is copied: the mask is aligned to this length.
        let seq_lens_kv = [chunk_start + len];
        let heads_per_set = self.keys.len() / self.sets.len();
        let shape = AttentionShape { seq_len_q: len, ..shape(self.keys, self.values.shape()[1], 1) };
        let mut output =
            AttentionOutput::new(HostTensor::zeros([1, len, heads, BYTES]), HostTensor::zeros([1, len, heads, 1]));
        let mut sets = Vec::new();
        // Attention runs head by head because the heads share the values, which a head axis would have to repeat. Its one head reads the
        // list of its set.
        for (set, k) in self.sets.iter().enumerate() {
            let count = heads_per_set as u32;
            let set_shape = AttentionShape { num_q_heads: count, num_kv_heads: count, ..shape };
            let problem = self.selector.problem(set_shape, T::DTYPE, self.softmax_scale);
            let selection = problem.blocks().with_granularity(Granularity::QueryHead);
            let heads_of_set = set * heads_per_set..(set + 1) * heads_per_set;
            let set_q = take_heads(q, heads_of_set.clone())?;
            let blocks = self
                .engine
                .inner
                .select(&problem, &SelectionInputs::new(&set_q, k).with_seq_lens_kv(&seq_lens_kv))
                .wait()?;
            let problem = AttentionProblem::new(shape, T::DTYPE)
                .with_out_dtype(DType::F32)
                .with_mask(Mask::Causal)
                .with_softmax_scale(self.softmax_scale)
                .with_blocks(selection);
            for head in heads_of_set {
                let q = take_heads(q, head..head + 1)?;
                let inputs = HostInputs::new(&q, &self.keys[head], &self.values).with_seq_lens_kv(&seq_lens_kv);
                let part = self.engine.inner.attend(&problem, &inputs.with_blocks(&blocks)).wait()?;
                interleave(output.out.data_mut(), part.out.data(), head, heads as usize, BYTES as usize);
                interleave(output.lse.data_mut(), part.lse.data(), head, heads as usize, 1);
            }
            sets.push(SetLists { blocks, selection });
        }
        Ok(SparseChunk { output, sets })
    }
}

/// One query over `len` keys.
fn shape<T: Element>(keys: &[HostTensor<T>], len: u32, num_heads: usize) -> AttentionShape {
    AttentionShape {
        batch_size: 1,
        seq_len_q: 1,
        seq_len_kv: len,
        num_q_heads: num_heads as u32,
        num_kv_heads: num_heads as u32,
        head_dim: keys.first().map_or(0, |k| k.shape()[3]),
        head_dim_v: BYTES,
    }
}

/// Some heads of a tensor.
fn take_heads<T: Element>(q: &HostTensor<T>, heads: Range<usize>) -> Result<HostTensor<T>> {
    let [_, len, _, dim] = q.shape();
    let rows = (0..len as usize).flat_map(|row| heads.clone().flat_map(move |head| q.row(0, row, head)));
    HostTensor::new([1, len, heads.len() as u32, dim], rows.copied().collect())
}

/// `[1, len, heads, head_dim]` from one `[1, len, 1, head_dim]` for each head.
fn side_by_side<T: Element>(keys: &[HostTensor<T>]) -> Result<HostTensor<T>> {
    let [_, len, _, dim] = keys.first().map_or([0; 4], HostTensor::shape);
    let rows = (0..len as usize).flat_map(|row| keys.iter().flat_map(move |k| k.row(0, row, 0)));
    HostTensor::new([1, len, keys.len() as u32, dim], rows.copied().collect())
}
