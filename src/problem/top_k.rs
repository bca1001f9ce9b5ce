//! The best entries of rows of scores as a problem.

use super::given::exactly_when;
use super::pool::fits_words;
use crate::{AttentionProblem, DType, Error, HostTensor, Result};

/// The score of an entry that does not exist, such as a block that no query sees. A top-k takes no entry with this or a lower score.
pub const MASKED_SCORE: f32 = -3.0e38;

/// A caller's instruction for one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum Mark {
    /// It is taken where its score is among the best.
    #[default]
    Free = 0,
    /// It is taken before any that is not forced.
    Forced = 1,
    /// It is not taken.
    Forbidden = 2,
}

/// The `k` best of each row's `n` scores, as ascending lists that
/// [`AttentionProblem::with_blocks`](crate::AttentionProblem::with_blocks) takes: entry `i` is written as
/// `i * block_size`, the first key of block `i`.
///
/// Entries rank by score, then by index, the lower one first; zeros of either sign tie. An entry that scores [`MASKED_SCORE`] exactly does
/// not exist and is never taken; entries with NaN, -infinity or a score below `MASKED_SCORE` are taken only where they are forced. Forced
/// entries count in `k`: they come first, entries of lower index before others. A row has fewer than `k` entries where fewer can be taken,
/// and none where none can.
///
/// ```
/// use wattn::{HostTensor, TopKProblem, cpu};
/// let scores = HostTensor::new([1, 1, 1, 5], vec![0.5, 3.0, 1.0, 3.0, 0.25])?;
/// let best = TopKProblem::new(scores.shape(), 3).with_forced_last(1).with_block_size(16);
/// assert_eq!(cpu::top_k(&best, &scores, None)?.list(0, 0, 0), [16, 48, 64]); // the last one, and the two of 3.0
/// # Ok::<(), wattn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopKProblem {
    pub(crate) shape: [u32; 4],
    pub(crate) k: u32,
    pub(crate) block_size: u32,
    pub(crate) forced_first: u32,
    pub(crate) forced_last: u32,
    pub(crate) marks: bool,
}

impl TopKProblem {
    /// The best `k` of the last axis of scores of `shape`, `[batch, set, q_block, n]`.
    #[must_use]
    pub const fn new(shape: [u32; 4], k: u32) -> Self {
        Self { shape, k, block_size: 1, forced_first: 0, forced_last: 0, marks: false }
    }

    /// Sets the factor of indices, the keys of a block [default: 1].
    #[must_use]
    pub const fn with_block_size(mut self, block_size: u32) -> Self {
        self.block_size = block_size;
        self
    }

    /// Forces the entries below this index, as far as they exist.
    #[must_use]
    pub const fn with_forced_first(mut self, entries: u32) -> Self {
        self.forced_first = entries;
        self
    }

    /// Forces the last entries of each row, counted from the last entry that exists.
    #[must_use]
    pub const fn with_forced_last(mut self, entries: u32) -> Self {
        self.forced_last = entries;
        self
    }

    /// Says that each entry of each row has a [`Mark`].
    #[must_use]
    pub const fn with_marks(mut self) -> Self {
        self.marks = true;
        self
    }

    /// Whether each entry has a [`Mark`].
    #[must_use]
    pub const fn takes_marks(&self) -> bool {
        self.marks
    }

    /// `[batch, set, q_block, n]` of the scores, and of the marks.
    #[must_use]
    pub const fn shape(&self) -> [u32; 4] {
        self.shape
    }

    /// Most entries of a list.
    #[must_use]
    pub const fn k(&self) -> u32 {
        self.k
    }

    /// The factor of indices.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Entries that are forced at either end of a row.
    #[must_use]
    pub const fn forced(&self) -> [u32; 2] {
        [self.forced_first, self.forced_last]
    }

    /// `[batch, set, q_block, k]` of the lists; the first three axes are those of the counts.
    #[must_use]
    pub const fn lists_shape(&self) -> [u32; 4] {
        let [batch, sets, q_blocks, _] = self.shape;
        [batch, sets, q_blocks, self.k]
    }

    pub(crate) fn num_rows(&self) -> u64 {
        self.shape[..3].iter().map(|&axis| u64::from(axis)).product()
    }

    /// Checks the rules that need no device.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field, its value and the rule.
    pub fn validate(&self) -> Result<()> {
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if self.k == 0 {
            return invalid("k", 0, "must be at least 1");
        }
        if self.block_size == 0 {
            return invalid("block_size", 0, "must be at least 1");
        }
        if self.forced_first.saturating_add(self.forced_last) > self.k {
            return invalid("k", self.k, "must be at least forced_first + forced_last: forced entries count in k");
        }
        let keys = u64::from(self.shape[3]) * u64::from(self.block_size);
        if keys > u64::from(AttentionProblem::MAX_SEQ_LEN) + u64::from(self.block_size) {
            return Err(Error::Invalid { field: "n * block_size", value: keys, rule: "must be below 2^29" });
        }
        fits_words("scores", self.shape)?;
        fits_words("lists", self.lists_shape())
    }

    /// Checks the tensors of a call.
    pub(crate) fn validate_inputs(&self, scores: &HostTensor, marks: Option<&[Mark]>) -> Result<()> {
        self.validate()?;
        scores.check("scores", DType::F32, self.shape)?;
        match exactly_when("marks", marks, self.marks)? {
            Some(marks) => check_marks(marks, self.shape),
            None => Ok(()),
        }
    }
}

/// Checks that there is a mark for each entry.
pub(super) fn check_marks(marks: &[Mark], shape: [u32; 4]) -> Result<()> {
    let (expected, actual) = (shape.iter().map(|&axis| u64::from(axis)).product(), marks.len() as u64);
    if actual == expected { Ok(()) } else { Err(Error::Length { tensor: "marks", expected, actual }) }
}
