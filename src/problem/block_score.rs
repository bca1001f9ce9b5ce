//! Scores of blocks of keys by their summaries as a problem.

use super::check_lens;
use super::pool::fits_words;
use crate::{AttentionProblem, AttentionShape, DType, Element, Error, Granularity, HostTensor, Mask, Result};

/// How a query scores a block from its summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockScoring {
    /// `q . summary`, for a summary of one vector.
    Dot,
    /// `sum over channels of max(q * min, q * max)`, for a summary by [`Pooling::MinMax`](crate::Pooling): an upper bound on the score of
    /// every key of the block (Quest).
    Bound,
}

impl BlockScoring {
    /// Every way to score.
    pub const ALL: [Self; 2] = [Self::Dot, Self::Bound];

    /// Vectors of `head_dim` numbers in a summary.
    #[must_use]
    pub const fn num_vectors(self) -> u32 {
        match self {
            Self::Dot => 1,
            Self::Bound => 2,
        }
    }
}

/// The way in which several scores of a block become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reduction {
    /// The largest.
    Max,
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

impl Reduction {
    /// Every reduction.
    pub const ALL: [Self; 3] = [Self::Max, Self::Sum, Self::Mean];
}

/// Scores of blocks of keys for blocks of queries: each query of a query block scores each block that it sees; the scores of a head's
/// queries are reduced to one, then the scores of the heads that share a list.
///
/// Query `i` of a sequence sits at position `i + seq_len_kv - seq_len_q`. Under a causal mask it sees a block if it sees the
/// block's first key, or [with complete blocks](Self::with_complete_blocks) its last. A block that no query of the query block sees
/// scores [`MASKED_SCORE`](crate::MASKED_SCORE). NaN scores are left out; a block with only NaN scores has the score NaN.
///
/// ```
/// use wattn::{AttentionShape, BlockScoreProblem, BlockScoring, DType, Granularity};
/// let shape = AttentionShape {
///     batch_size: 1, seq_len_q: 1, seq_len_kv: 1000, num_q_heads: 32, num_kv_heads: 8, head_dim: 128, head_dim_v: 128,
/// };
/// let problem = BlockScoreProblem::new(shape, DType::F16, 16, BlockScoring::Bound).with_granularity(Granularity::KvHead);
/// assert_eq!(problem.scores_shape(), [1, 8, 1, 63]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockScoreProblem {
    pub(crate) shape: AttentionShape,
    pub(crate) dtype: DType,
    pub(crate) block_size: u32,
    pub(crate) scoring: BlockScoring,
    pub(crate) block_size_q: u32,
    pub(crate) granularity: Granularity,
    pub(crate) rows: Reduction,
    pub(crate) heads: Reduction,
    pub(crate) mask: Mask,
    pub(crate) complete: bool,
    pub(crate) seq_lens_kv: bool,
}

impl BlockScoreProblem {
    /// Causal; a list of scores for each query and query head; scores are reduced to the largest.
    /// `dtype` is that of q; `shape.head_dim_v` plays no part.
    #[must_use]
    pub const fn new(shape: AttentionShape, dtype: DType, block_size: u32, scoring: BlockScoring) -> Self {
        Self {
            shape,
            dtype,
            block_size,
            scoring,
            block_size_q: 1,
            granularity: Granularity::QueryHead,
            rows: Reduction::Max,
            heads: Reduction::Max,
            mask: Mask::Causal,
            complete: false,
            seq_lens_kv: false,
        }
    }

    /// Sets how many queries share a list of scores, and how their scores are reduced.
    #[must_use]
    pub const fn with_query_blocks(mut self, block_size_q: u32, rows: Reduction) -> Self {
        (self.block_size_q, self.rows) = (block_size_q, rows);
        self
    }

    /// Sets which query heads share a list of scores.
    #[must_use]
    pub const fn with_granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// Sets how the scores of heads that share a list are reduced.
    #[must_use]
    pub const fn with_head_reduction(mut self, heads: Reduction) -> Self {
        self.heads = heads;
        self
    }

    /// Sets the mask: [`Mask::Causal`] or [`Mask::Full`].
    #[must_use]
    pub const fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }

    /// A query sees a block only where it sees the whole block.
    #[must_use]
    pub const fn with_complete_blocks(mut self) -> Self {
        self.complete = true;
        self
    }

    /// Says that the key length of each sequence comes from a GPU buffer; `seq_len_kv` is their upper bound.
    #[must_use]
    pub const fn with_seq_lens_kv(mut self) -> Self {
        self.seq_lens_kv = true;
        self
    }

    /// The sizes.
    #[must_use]
    pub const fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// Storage of q. Summaries and scores are f32.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Keys of a block.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Queries that share a list of scores.
    #[must_use]
    pub const fn block_size_q(&self) -> u32 {
        self.block_size_q
    }

    /// `[batch, block, kv_head, num_vectors * head_dim]` of the summaries.
    #[must_use]
    pub const fn summaries_shape(&self) -> [u32; 4] {
        let AttentionShape { batch_size, num_kv_heads, head_dim, .. } = self.shape;
        [batch_size, self.num_blocks(), num_kv_heads, self.scoring.num_vectors() * head_dim]
    }

    /// `[batch, set, q_block, block]` of the scores.
    #[must_use]
    pub const fn scores_shape(&self) -> [u32; 4] {
        let q_blocks = self.shape.seq_len_q.div_ceil(self.block_size_q);
        [self.shape.batch_size, self.granularity.num_sets(&self.shape), q_blocks, self.num_blocks()]
    }

    pub(crate) const fn num_blocks(&self) -> u32 {
        self.shape.seq_len_kv.div_ceil(self.block_size)
    }

    /// Index within a block of the key that a query must see.
    #[must_use]
    pub const fn needed_key(&self) -> u32 {
        if self.complete { self.block_size - 1 } else { 0 }
    }

    /// Checks the rules that need no device.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Argument`] or [`Error::TooLarge`], naming the field, its value and the rule.
    pub fn validate(&self) -> Result<()> {
        AttentionProblem::new(self.shape, self.dtype).validate()?;
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        for (field, value) in [("block_size", self.block_size), ("block_size_q", self.block_size_q)] {
            if value == 0 {
                return invalid(field, 0, "must be at least 1");
            }
            if value > AttentionProblem::MAX_SEQ_LEN {
                return invalid(field, value, "must be below 2^29, so that positions fit signed 32-bit arithmetic");
            }
        }
        if !matches!(self.mask, Mask::Causal | Mask::Full) {
            let rule = "blocks are scored under a causal or a full mask";
            return Err(Error::Argument { argument: "mask", rule });
        }
        fits_words("summaries", self.summaries_shape())?;
        fits_words("scores", self.scores_shape())
    }

    /// Checks the tensors of a call.
    pub(crate) fn validate_inputs<T: Element>(
        &self,
        q: &HostTensor<T>,
        summaries: &HostTensor,
        seq_lens_kv: Option<&[u32]>,
    ) -> Result<()> {
        self.validate()?;
        q.check("q", self.dtype, self.shape.q())?;
        summaries.check("summaries", DType::F32, self.summaries_shape())?;
        check_lens("seq_lens_kv", seq_lens_kv, self.shape.batch_size, self.shape.seq_len_kv)
    }
}
