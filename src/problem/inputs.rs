//! Inputs and outputs of a call as tensors in host memory.

use super::given::exactly_when;
use super::top_k::check_marks;
use super::{AttentionProblem, AttentionShape, HostBlockLists, Mark, SelectionProblem};
use crate::{AnyHostTensor, DType, Element, Error, HostTensor, Result};

/// q, k and v in host memory, the key length of each sequence, and the lists of blocks where the problem takes them.
///
/// ```
/// use wattn::{HostInputs, HostTensor};
/// # let [q, k, v] = [[2, 1, 1, 4], [2, 3, 1, 4], [2, 3, 1, 4]].map(HostTensor::<f32>::zeros);
/// let inputs = HostInputs::new(&q, &k, &v).with_seq_lens_kv(&[3, 2]);
/// assert_eq!(inputs.seq_len_kv(1), 2);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HostInputs<'a, T = f32> {
    pub(crate) q: &'a HostTensor<T>,
    pub(crate) k: &'a HostTensor<T>,
    pub(crate) v: &'a HostTensor<T>,
    pub(crate) seq_lens_kv: Option<&'a [u32]>,
    pub(crate) blocks: Option<&'a HostBlockLists>,
    pub(crate) tensors: &'a [(&'a str, AnyHostTensor<'a>)],
}

impl<'a, T> HostInputs<'a, T> {
    /// q `[batch, seq_len_q, num_q_heads, head_dim]`, k `[batch, seq_len_kv, num_kv_heads, head_dim]` and v
    /// `[batch, seq_len_kv, num_kv_heads, head_dim_v]`. All keys count.
    #[must_use]
    pub const fn new(q: &'a HostTensor<T>, k: &'a HostTensor<T>, v: &'a HostTensor<T>) -> Self {
        Self { q, k, v, seq_lens_kv: None, blocks: None, tensors: &[] }
    }

    /// Sets how many keys of each sequence count, `[batch]`. A value past `seq_len_kv` is an error.
    #[must_use]
    pub const fn with_seq_lens_kv(mut self, seq_lens_kv: &'a [u32]) -> Self {
        self.seq_lens_kv = Some(seq_lens_kv);
        self
    }

    /// Sets the lists of blocks, which a problem takes exactly when it says
    /// [`with_blocks`](AttentionProblem::with_blocks).
    #[must_use]
    pub const fn with_blocks(mut self, blocks: &'a HostBlockLists) -> Self {
        self.blocks = Some(blocks);
        self
    }

    /// Sets the tensors that the problem's [biases](crate::Bias) take, by name: each exactly once.
    #[must_use]
    pub const fn with_tensors(mut self, tensors: &'a [(&'a str, AnyHostTensor<'a>)]) -> Self {
        self.tensors = tensors;
        self
    }

    /// `[batch, seq_len_q, num_q_heads, head_dim]`.
    #[must_use]
    pub const fn q(&self) -> &'a HostTensor<T> {
        self.q
    }

    /// `[batch, seq_len_kv, num_kv_heads, head_dim]`.
    #[must_use]
    pub const fn k(&self) -> &'a HostTensor<T> {
        self.k
    }

    /// `[batch, seq_len_kv, num_kv_heads, head_dim_v]`.
    #[must_use]
    pub const fn v(&self) -> &'a HostTensor<T> {
        self.v
    }

    /// Keys of each sequence that count; `None`: all `seq_len_kv` of them.
    #[must_use]
    pub const fn seq_lens_kv(&self) -> Option<&'a [u32]> {
        self.seq_lens_kv
    }

    /// The lists of blocks.
    #[must_use]
    pub const fn blocks(&self) -> Option<&'a HostBlockLists> {
        self.blocks
    }

    /// q, k and the lengths, for a selection.
    #[must_use]
    pub const fn for_selection(&self) -> SelectionInputs<'a, T> {
        SelectionInputs { q: self.q, k: self.k, seq_lens_kv: self.seq_lens_kv, marks: None }
    }
}

impl<T: Element> HostInputs<'_, T> {
    /// Checks the tensors, the lengths and the lists against the problem.
    ///
    /// # Errors
    /// The errors of [`AttentionProblem::validate`]; [`Error::DType`], [`Error::Shape`], [`Error::Length`] or
    /// [`Error::Invalid`] naming the tensor; the errors of [`HostBlockLists::validate`], and [`Error::Argument`] for lists that the problem
    /// does not take, or missing lists that it takes.
    pub fn validate(&self, problem: &AttentionProblem) -> Result<()> {
        problem.validate()?;
        let shape = problem.shape();
        self.q.check("q", problem.dtype(), problem.q_shape())?;
        self.k.check("k", problem.dtype(), problem.k_shape())?;
        self.v.check("v", problem.dtype(), problem.v_shape())?;
        if self.seq_lens_kv.is_some() {
            problem.check_lengths_of_their_own()?;
        }
        validate_seq_lens(self.seq_lens_kv, shape)?;
        let blocks = exactly_when("blocks", self.blocks, problem.blocks().is_some())?;
        if let Some((selection, blocks)) = problem.blocks().zip(blocks) {
            blocks.validate(selection, shape, self.seq_lens_kv)?;
        }
        self.check_tensors(problem)
    }

    /// The tensors that come by name.
    fn check_tensors(&self, problem: &AttentionProblem) -> Result<()> {
        for (name, shape, dtype) in problem.named_tensors() {
            check_named(one_named(name, self.tensors)?, name, shape, dtype)?;
        }
        all_known(problem, self.tensors)
    }

    /// The number of keys of one sequence.
    #[must_use]
    pub fn seq_len_kv(&self, batch: u32) -> u32 {
        self.seq_lens_kv.map_or(self.k.shape()[1], |lens| lens[batch as usize])
    }
}

/// q and k in host memory, the key length of each sequence, and the marks of blocks where the method takes them.
#[derive(Clone, Copy, Debug)]
pub struct SelectionInputs<'a, T = f32> {
    pub(crate) q: &'a HostTensor<T>,
    pub(crate) k: &'a HostTensor<T>,
    pub(crate) seq_lens_kv: Option<&'a [u32]>,
    pub(crate) marks: Option<&'a [Mark]>,
}

impl<'a, T> SelectionInputs<'a, T> {
    /// q `[batch, seq_len_q, num_q_heads, head_dim]` and k `[batch, seq_len_kv, num_kv_heads, head_dim]`. All keys count.
    #[must_use]
    pub const fn new(q: &'a HostTensor<T>, k: &'a HostTensor<T>) -> Self {
        Self { q, k, seq_lens_kv: None, marks: None }
    }

    /// Sets how many keys of each sequence count, `[batch]`. A value past `seq_len_kv` is an error.
    #[must_use]
    pub const fn with_seq_lens_kv(mut self, seq_lens_kv: &'a [u32]) -> Self {
        self.seq_lens_kv = Some(seq_lens_kv);
        self
    }

    /// Sets a [`Mark`] for each block of each list, `[batch, set, q_block, block]`: exactly when the method takes marks, see
    /// [`SelectionProblem::marks_shape`].
    #[must_use]
    pub const fn with_marks(mut self, marks: &'a [Mark]) -> Self {
        self.marks = Some(marks);
        self
    }

    /// `[batch, seq_len_q, num_q_heads, head_dim]`.
    #[must_use]
    pub const fn q(&self) -> &'a HostTensor<T> {
        self.q
    }

    /// `[batch, seq_len_kv, num_kv_heads, head_dim]`.
    #[must_use]
    pub const fn k(&self) -> &'a HostTensor<T> {
        self.k
    }

    /// Keys of each sequence that count; `None`: all `seq_len_kv` of them.
    #[must_use]
    pub const fn seq_lens_kv(&self) -> Option<&'a [u32]> {
        self.seq_lens_kv
    }

    /// The marks of blocks.
    #[must_use]
    pub const fn marks(&self) -> Option<&'a [Mark]> {
        self.marks
    }
}

impl<T: Element> SelectionInputs<'_, T> {
    /// Checks the tensors against the problem.
    ///
    /// # Errors
    /// The errors of [`SelectionProblem::validate`]; [`Error::DType`], [`Error::Shape`], [`Error::Length`] or
    /// [`Error::Invalid`] naming the tensor; [`Error::Argument`] for marks that the method does not take, or missing marks that it takes.
    pub fn validate(&self, problem: &SelectionProblem) -> Result<()> {
        problem.validate()?;
        self.q.check("q", problem.dtype, problem.q_shape())?;
        self.k.check("k", problem.dtype, problem.k_shape())?;
        validate_seq_lens(self.seq_lens_kv, problem.shape())?;
        let marks_shape = problem.marks_shape();
        let marks = exactly_when("marks", self.marks, marks_shape.is_some())?;
        match marks.zip(marks_shape) {
            Some((marks, shape)) => check_marks(marks, shape),
            None => Ok(()),
        }
    }

    /// The number of keys of one sequence.
    #[must_use]
    pub fn seq_len_kv(&self, batch: u32) -> u32 {
        self.seq_lens_kv.map_or(self.k.shape()[1], |lens| lens[batch as usize])
    }
}

/// The one tensor of a name.
pub(crate) fn one_named<T: Copy>(argument: &'static str, given: &[(&str, T)]) -> Result<T> {
    let mut named = given.iter().filter(|(name, _)| *name == argument);
    match (named.next(), named.next()) {
        (Some((_, tensor)), None) => Ok(*tensor),
        (Some(_), Some(_)) => Err(Error::Argument { argument, rule: "is given twice" }),
        (None, _) => Err(Error::Argument { argument, rule: "is required by the problem" }),
    }
}

/// Fails for a name that the problem does not have.
pub(crate) fn all_known<T>(problem: &AttentionProblem, given: &[(&str, T)]) -> Result<()> {
    match given.iter().find(|(name, _)| problem.named_tensors().all(|(known, ..)| known != *name)) {
        Some((name, _)) => Err(Error::Unknown { what: "tensor", name: (*name).to_owned() }),
        None => Ok(()),
    }
}

/// Checks a tensor. On the host its numbers are looked at as well.
fn check_named(given: AnyHostTensor<'_>, tensor: &'static str, expected: [u32; 4], dtype: DType) -> Result<()> {
    given.check(tensor, dtype, expected)?;
    if given.has_nan() {
        return Err(Error::Argument { argument: tensor, rule: "holds NaN" });
    }
    Ok(())
}

/// Checks the key lengths of a call.
pub(crate) fn validate_seq_lens(seq_lens_kv: Option<&[u32]>, shape: &AttentionShape) -> Result<()> {
    check_lens("seq_lens_kv", seq_lens_kv, shape.batch_size, shape.seq_len_kv)
}

/// Checks the lengths of some sequences, each at most `most`.
pub(crate) fn check_lens(name: &'static str, lens: Option<&[u32]>, batch_size: u32, most: u32) -> Result<()> {
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

/// The result of attention.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AttentionOutput {
    /// `[batch, seq_len_q, num_q_heads, head_dim_v]`.
    pub out: HostTensor,
    /// Natural log of the sum of exponentials, `[batch, seq_len_q, num_q_heads, 1]`;
    /// [`LSE_EMPTY`](crate::LSE_EMPTY) in rows that see no key.
    pub lse: HostTensor,
}

impl AttentionOutput {
    /// An output made of tensors that the caller computed.
    #[must_use]
    pub const fn new(out: HostTensor, lse: HostTensor) -> Self {
        Self { out, lse }
    }
}
