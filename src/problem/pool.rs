//! Summaries of blocks of keys as a problem.

use super::check_lens;
use crate::{AttentionProblem, DType, Element, Error, HostTensor, Result};

/// How a block of keys is summarised, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pooling {
    /// The mean of the keys.
    Mean,
    /// The largest value of each channel.
    Max,
    /// The smallest value of each channel.
    Min,
    /// The smallest value of each channel, then the largest of each: [`BlockScoring::Bound`](crate::BlockScoring) takes these.
    MinMax,
}

impl Pooling {
    /// Every way to pool.
    pub const ALL: [Self; 4] = [Self::Mean, Self::Max, Self::Min, Self::MinMax];

    /// Vectors of `head_dim` numbers in a summary.
    #[must_use]
    pub const fn num_vectors(self) -> u32 {
        match self {
            Self::Mean | Self::Max | Self::Min => 1,
            Self::MinMax => 2,
        }
    }
}

/// Summaries of blocks of keys: block `b` of a sequence holds the keys from `b * block_size` on; the last block may be shorter. Keys
/// past a sequence's length are left out; a block without any key has zeros.
///
/// A channel in which any key of the block is NaN is NaN. Queries can be pooled the same way, passed as keys.
///
/// ```
/// use wattn::{DType, PoolProblem, Pooling};
/// let problem = PoolProblem::new([1, 1000, 8, 128], DType::F16, 16, Pooling::MinMax);
/// assert_eq!(problem.summaries_shape(), [1, 63, 8, 256]); // the last block has 8 keys
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolProblem {
    pub(crate) shape: [u32; 4],
    pub(crate) dtype: DType,
    pub(crate) block_size: u32,
    pub(crate) pooling: Pooling,
    pub(crate) seq_lens: bool,
}

impl PoolProblem {
    /// Keys of `shape` `[batch, seq, head, dim]`, stored as `dtype`, in blocks of `block_size`.
    #[must_use]
    pub const fn new(shape: [u32; 4], dtype: DType, block_size: u32, pooling: Pooling) -> Self {
        Self { shape, dtype, block_size, pooling, seq_lens: false }
    }

    /// Says that the length of each sequence comes from a GPU buffer; the shape's length is the upper bound.
    #[must_use]
    pub const fn with_seq_lens(mut self) -> Self {
        self.seq_lens = true;
        self
    }

    /// `[batch, seq, head, dim]` of the keys.
    #[must_use]
    pub const fn shape(&self) -> [u32; 4] {
        self.shape
    }

    /// Storage of the keys. Summaries are f32.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Keys of a block.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// How a block is summarised.
    #[must_use]
    pub const fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// `[batch, block, head, num_vectors * dim]` of the summaries.
    #[must_use]
    pub const fn summaries_shape(&self) -> [u32; 4] {
        let [batch, seq, heads, dim] = self.shape;
        [batch, seq.div_ceil(self.block_size), heads, self.pooling.num_vectors() * dim]
    }

    /// Checks the rules that need no device.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field, its value and the rule.
    pub fn validate(&self) -> Result<()> {
        let [_, seq, _, dim] = self.shape;
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if self.block_size == 0 {
            return invalid("block_size", 0, "must be at least 1");
        }
        if dim == 0 || !dim.is_multiple_of(4) || dim > AttentionProblem::MAX_HEAD_DIM {
            return invalid("head_dim", dim, "must be a multiple of 4 from 4 to 256");
        }
        for (field, value) in [("seq_len", seq), ("block_size", self.block_size)] {
            if value > AttentionProblem::MAX_SEQ_LEN {
                return invalid(field, value, "must be below 2^29, so that positions fit signed 32-bit arithmetic");
            }
        }
        fits_words("summaries", self.summaries_shape())
    }

    /// Checks the tensors of a call.
    pub(crate) fn validate_inputs<T: Element>(&self, k: &HostTensor<T>, seq_lens: Option<&[u32]>) -> Result<()> {
        self.validate()?;
        k.check("k", self.dtype, self.shape)?;
        check_lens("seq_lens", seq_lens, self.shape[0], self.shape[1])
    }
}

/// Checks that the elements of a tensor can be counted in 32 bits.
pub(super) fn fits_words(what: &'static str, shape: [u32; 4]) -> Result<()> {
    let needed = shape.iter().fold(1u64, |product, &axis| product.saturating_mul(axis.into()));
    let available = u32::MAX.into();
    if needed > available { Err(Error::TooLarge { what, needed, available }) } else { Ok(()) }
}
