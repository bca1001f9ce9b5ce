//! Attention on the CPU: the definition ([`oracle`]), the blockwise path that runs where there is no GPU ([`attend`]),
//! and the [`twins`] of the GPU kernels.

pub mod oracle;
mod path;
pub mod twins;

pub use path::{
    CpuTiling, StageCache, attend, attend_selected, attend_with_tiling, block_scores, pool, select, select_from, top_k,
};
pub use twins::merge_splits as merge;

use crate::{AttentionProblem, AttentionShape, Element, Error, HostBlocks, HostTensor, Result, SelectionInputs};

/// q, k and v in host memory, and the key length of each sequence.
#[derive(Clone, Copy, Debug)]
pub struct HostInputs<'a, T = f32> {
    /// `[batch, seq_len_q, num_q_heads, head_dim]`.
    pub q: &'a HostTensor<T>,
    /// `[batch, seq_len_kv, num_kv_heads, head_dim]`.
    pub k: &'a HostTensor<T>,
    /// `[batch, seq_len_kv, num_kv_heads, head_dim_v]`.
    pub v: &'a HostTensor<T>,
    /// Keys of each sequence that count; `None`: all `seq_len_kv` of them. A value past `seq_len_kv` is an error.
    pub seq_lens_kv: Option<&'a [u32]>,
}

impl<T: Element> HostInputs<'_, T> {
    /// Checks the tensors against the problem.
    ///
    /// # Errors
    /// What [`AttentionProblem::validate`] returns; [`Error::DType`], [`Error::Shape`], [`Error::Length`] or
    /// [`Error::Invalid`] naming the tensor.
    pub fn validate(&self, problem: &AttentionProblem) -> Result<()> {
        problem.validate()?;
        if T::DTYPE != problem.dtype() {
            return Err(Error::DType { tensor: "q", expected: problem.dtype(), actual: T::DTYPE });
        }
        let shape = problem.shape();
        let tensors = [("q", self.q, shape.q()), ("k", self.k, shape.k()), ("v", self.v, shape.v())];
        for (tensor, given, expected) in tensors {
            if given.shape() != expected {
                return Err(Error::Shape { tensor, expected, actual: given.shape() });
            }
        }
        if self.seq_lens_kv.is_some() {
            problem.check_lengths_of_their_own()?;
        }
        validate_seq_lens(self.seq_lens_kv, shape)
    }

    /// q and k of the same tensors, for a selection.
    #[must_use]
    pub const fn for_selection(&self) -> SelectionInputs<'_, T> {
        SelectionInputs { q: self.q, k: self.k, seq_lens_kv: self.seq_lens_kv }
    }

    /// The number of keys of one sequence.
    #[must_use]
    pub fn seq_len_kv(&self, batch: u32) -> u32 {
        self.seq_lens_kv.map_or(self.k.shape()[1], |lens| lens[batch as usize])
    }
}

/// Checks that lists of blocks come with a problem that takes them, and what they hold.
pub(crate) fn validate_blocks(
    problem: &AttentionProblem,
    blocks: Option<&HostBlocks>,
    seq_lens_kv: Option<&[u32]>,
) -> Result<()> {
    match (problem.block_selection(), blocks) {
        (Some(selection), Some(blocks)) => blocks.validate(selection, problem.shape(), seq_lens_kv),
        (None, None) => Ok(()),
        (Some(_), None) => Err(Error::Argument { argument: "blocks", rule: "is required by the problem" }),
        (None, Some(_)) => Err(Error::Argument { argument: "blocks", rule: "is not part of the problem" }),
    }
}

/// Checks the key lengths of a call.
pub(crate) fn validate_seq_lens(seq_lens_kv: Option<&[u32]>, shape: &AttentionShape) -> Result<()> {
    check_lens("seq_lens_kv", seq_lens_kv, shape.batch_size, shape.seq_len_kv)
}

fn check_lens(name: &'static str, lens: Option<&[u32]>, batch_size: u32, most: u32) -> Result<()> {
    let Some(lens) = lens else { return Ok(()) };
    if lens.len() != batch_size as usize {
        let (expected, actual) = (batch_size.into(), lens.len() as u64);
        return Err(Error::Length { tensor: name, expected, actual });
    }
    if let Some(&len) = lens.iter().find(|&&len| len > most) {
        return Err(Error::Invalid { field: name, value: len.into(), rule: "must be at most seq_len_kv" });
    }
    Ok(())
}

/// What attention gives.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionOutput {
    /// `[batch, seq_len_q, num_q_heads, head_dim_v]`.
    pub out: HostTensor,
    /// Natural log of the sum of exponentials, `[batch, seq_len_q, num_q_heads, 1]`;
    /// [`LSE_EMPTY`](crate::LSE_EMPTY) in rows that see no key.
    pub lse: HostTensor,
}
