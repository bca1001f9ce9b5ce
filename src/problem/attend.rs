//! Dense attention as a problem: shapes, mask, scale, element types.

use super::{ScoreMod, Sinks};
use crate::{BlockListSpec, DType, Error, Mask, Result};

/// The sizes of an attention problem. Lengths are upper bounds: the actual key lengths may come from a GPU buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "bench", derive(serde::Serialize, serde::Deserialize))]
pub struct AttentionShape {
    /// Sequences.
    pub batch_size: u32,
    /// Query rows of each sequence, from 0.
    pub seq_len_q: u32,
    /// Keys of each sequence, from 0.
    pub seq_len_kv: u32,
    /// Query heads: a multiple of `num_kv_heads`.
    pub num_q_heads: u32,
    /// Key/value heads.
    pub num_kv_heads: u32,
    /// Width of q and k: a multiple of 4 up to 256.
    pub head_dim: u32,
    /// Width of v and out: a multiple of 4 up to 256.
    pub head_dim_v: u32,
}

impl AttentionShape {
    /// Query heads that share one KV head.
    #[must_use]
    pub const fn group_size(&self) -> u32 {
        self.num_q_heads / self.num_kv_heads
    }

    /// `[batch, seq, head, dim]` of q.
    #[must_use]
    pub const fn q(&self) -> [u32; 4] {
        [self.batch_size, self.seq_len_q, self.num_q_heads, self.head_dim]
    }

    /// `[batch, seq, head, dim]` of k.
    #[must_use]
    pub const fn k(&self) -> [u32; 4] {
        [self.batch_size, self.seq_len_kv, self.num_kv_heads, self.head_dim]
    }

    /// `[batch, seq, head, dim]` of v.
    #[must_use]
    pub const fn v(&self) -> [u32; 4] {
        [self.batch_size, self.seq_len_kv, self.num_kv_heads, self.head_dim_v]
    }

    /// `[batch, seq, head, dim]` of out.
    #[must_use]
    pub const fn out(&self) -> [u32; 4] {
        [self.batch_size, self.seq_len_q, self.num_q_heads, self.head_dim_v]
    }

    /// Rows of out. For a valid problem, whose sizes are far below what 64 bits hold.
    pub(crate) const fn out_rows(&self) -> u64 {
        self.batch_size as u64 * self.seq_len_q as u64 * self.num_q_heads as u64
    }

    /// `[batch, seq, head, 1]` of lse.
    #[must_use]
    pub const fn lse(&self) -> [u32; 4] {
        [self.batch_size, self.seq_len_q, self.num_q_heads, 1]
    }
}

/// Dense attention: `out = softmax(softmax_scale * q k^T + mask) v`, row by row.
///
/// A row that sees no key gives `out = 0` and `lse =` [`LSE_EMPTY`](crate::LSE_EMPTY).
///
/// ```
/// use wattn::{AttentionProblem, AttentionShape, DType, Mask};
/// let shape = AttentionShape {
///     batch_size: 1, seq_len_q: 512, seq_len_kv: 512,
///     num_q_heads: 8, num_kv_heads: 2, head_dim: 64, head_dim_v: 64,
/// };
/// let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
/// assert_eq!(problem.softmax_scale(), 0.125);
/// problem.validate()?;
/// # Ok::<(), wattn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionProblem {
    pub(crate) shape: AttentionShape,
    pub(crate) dtype: DType,
    pub(crate) out_dtype: DType,
    pub(crate) mask: Mask,
    pub(crate) softmax_scale: Option<f32>,
    pub(crate) lse: bool,
    pub(crate) seq_lens_kv: bool,
    pub(crate) aligned_rows: bool,
    pub(crate) bf16_by_f16_matrices: bool,
    pub(crate) blocks: Option<BlockListSpec>,
    pub(crate) score_mods: Vec<ScoreMod>,
    pub(crate) sinks: Option<Sinks>,
}

impl AttentionProblem {
    /// Widest head, in elements, of q and k or of v.
    pub const MAX_HEAD_DIM: u32 = 256;

    /// Longest sequence: positions plus or minus a window fit signed 32-bit arithmetic.
    pub const MAX_SEQ_LEN: u32 = i32::MAX as u32 / 4;

    /// Most elements of a tensor, so that sizes in bytes fit 64 bits with room to spare.
    pub const MAX_ELEMENTS: u64 = 1 << 48;

    /// Full mask, scale `1 / sqrt(head_dim)`, out stored like the inputs.
    #[must_use]
    pub const fn new(shape: AttentionShape, dtype: DType) -> Self {
        Self {
            shape,
            dtype,
            out_dtype: dtype,
            mask: Mask::Full,
            softmax_scale: None,
            lse: false,
            seq_lens_kv: false,
            aligned_rows: false,
            bf16_by_f16_matrices: false,
            blocks: None,
            score_mods: Vec::new(),
            sinks: None,
        }
    }

    /// Sets which keys a query sees.
    #[must_use]
    pub const fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }

    /// Sets the factor on q·k.
    #[must_use]
    pub const fn with_softmax_scale(mut self, scale: f32) -> Self {
        self.softmax_scale = Some(scale);
        self
    }

    /// Sets how `out` is stored.
    #[must_use]
    pub const fn with_out_dtype(mut self, dtype: DType) -> Self {
        self.out_dtype = dtype;
        self
    }

    /// Asks the GPU for the lse too (the CPU path always gives it).
    #[must_use]
    pub const fn with_lse(mut self) -> Self {
        self.lse = true;
        self
    }

    /// Promises that offsets and strides of q, k and v are multiples of 16 bytes (8 elements of a 16-bit type), which `bind` checks. With
    /// this promise and both widths multiples of 8, decoding reads 16 bytes with one load instead of two (2 % faster on an H100). f32 needs
    /// no promise.
    #[must_use]
    pub const fn with_aligned_rows(mut self) -> Self {
        self.aligned_rows = true;
        self
    }

    /// Allows GPUs to multiply bf16 q, k and v as f16 matrices ([`Tier::Matrix`](crate::Tier::Matrix)), where the device has them and
    /// there are enough rows to pay for it; other plans do not change. The CPU path ignores it.
    ///
    /// A bf16 has f32's range, an f16 does not. So every head of q, k and v of each sequence is multiplied by a power of two that takes
    /// its largest finite number to at least 2^14 and below 2^15. This is exact, and so is the inverse on the results. Every input fits,
    /// whatever its size, and no call fails for its values. The loss: let `p` be the power of two at or below the head's largest number. A
    /// number below `2^-31 p` is rounded to a multiple of `2^-38 p`; where a device takes subnormal f16 for 0, a number below `2^-28 p`
    /// counts as 0. With `Mq`, `Mk` and `Mv` the largest magnitudes of the heads, a score is off by at most
    /// `softmax_scale * head_dim * Mq * Mk * 2^-37` more than in f16, and `out` by `2^-38 Mv` and the effect of the scores' error. (With
    /// flushed subnormals 2^-27 and 2^-28.) Weights are rounded to f16, as they are for f16 tensors: see `docs::numerics`.
    ///
    /// # Cost
    /// One more dispatch, which finds the largest exponents of the heads: it reads q, and the k and v that queries see. So calls with
    /// few rows, which memory limits, take no matrices.
    ///
    /// # Errors
    /// [`validate`](Self::validate) then rejects types other than bf16, and [`with_blocks`](Self::with_blocks), whose kernels have no
    /// storage buffer left for the exponents: [`Error::Argument`].
    #[must_use]
    pub const fn with_bf16_by_f16_matrices(mut self) -> Self {
        self.bf16_by_f16_matrices = true;
        self
    }

    /// Checks that the mask goes with a length for each sequence.
    pub(crate) const fn check_lengths_of_their_own(&self) -> Result<()> {
        let rule = "Mask::CausalAt takes the key length of the shape: lengths of sequences say by themselves where queries sit, see Mask::Causal";
        if matches!(self.mask, Mask::CausalAt { .. }) {
            Err(Error::Argument { argument: "seq_lens_kv", rule })
        } else {
            Ok(())
        }
    }

    /// Says that the key length of each sequence comes from a GPU buffer; `seq_len_kv` is their upper bound. (On the
    /// CPU, [`HostInputs::seq_lens_kv`](crate::HostInputs::seq_lens_kv) alone decides.)
    #[must_use]
    pub const fn with_seq_lens_kv(mut self) -> Self {
        self.seq_lens_kv = true;
        self
    }

    /// Attends to selected blocks of keys, sinks and a window only: block-sparse attention. The lists come with the call.
    /// Takes [`Mask::Causal`], or [`Mask::Full`] without window and sinks.
    #[must_use]
    pub const fn with_blocks(mut self, blocks: BlockListSpec) -> Self {
        self.blocks = Some(blocks);
        self
    }

    /// The lists of blocks that the call takes, if it takes any.
    #[must_use]
    pub const fn blocks(&self) -> Option<&BlockListSpec> {
        self.blocks.as_ref()
    }

    /// The sizes.
    #[must_use]
    pub const fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// `[batch, seq, head, dim]` of q.
    #[must_use]
    pub const fn q_shape(&self) -> [u32; 4] {
        self.shape.q()
    }

    /// `[batch, seq, head, dim]` of k.
    #[must_use]
    pub const fn k_shape(&self) -> [u32; 4] {
        self.shape.k()
    }

    /// `[batch, seq, head, dim]` of v.
    #[must_use]
    pub const fn v_shape(&self) -> [u32; 4] {
        self.shape.v()
    }

    /// `[batch, seq, head, dim]` of out.
    #[must_use]
    pub const fn out_shape(&self) -> [u32; 4] {
        self.shape.out()
    }

    /// `[batch, seq, head, 1]` of the lse.
    #[must_use]
    pub const fn lse_shape(&self) -> [u32; 4] {
        self.shape.lse()
    }

    /// Whether the GPU is asked for the lse.
    #[must_use]
    pub const fn lse(&self) -> bool {
        self.lse
    }

    /// Whether the key length of each sequence comes with the call.
    #[must_use]
    pub const fn seq_lens_kv(&self) -> bool {
        self.seq_lens_kv
    }

    /// Whether offsets and strides are promised to be multiples of 16 bytes.
    #[must_use]
    pub const fn aligned_rows(&self) -> bool {
        self.aligned_rows
    }

    /// Whether bf16 may be multiplied as f16 matrices.
    #[must_use]
    pub const fn bf16_by_f16_matrices(&self) -> bool {
        self.bf16_by_f16_matrices
    }

    /// Storage of q, k and v.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Storage of out.
    #[must_use]
    pub const fn out_dtype(&self) -> DType {
        self.out_dtype
    }

    /// Which keys a query sees.
    #[must_use]
    pub const fn mask(&self) -> Mask {
        self.mask
    }

    /// The factor on q·k.
    #[must_use]
    pub fn softmax_scale(&self) -> f32 {
        self.softmax_scale.unwrap_or_else(|| (1.0 / f64::from(self.shape.head_dim).sqrt()) as f32)
    }

    /// The factor that kernels multiply q·k by: to a score in natural units where scores are modified, else to an exponent of 2.
    pub(crate) fn kernel_scale(&self) -> f32 {
        let scale = self.softmax_scale();
        if self.score_mods.is_empty() { (f64::from(scale) * core::f64::consts::LOG2_E) as f32 } else { scale }
    }

    /// Checks the rules that need no device. Plans and the CPU path call it themselves.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::TooLarge`] or [`Error::Scale`], naming the field, its value and the rule.
    pub fn validate(&self) -> Result<()> {
        let AttentionShape { num_q_heads, num_kv_heads, head_dim, head_dim_v, .. } = self.shape;
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if num_kv_heads == 0 {
            return invalid("num_kv_heads", 0, "must be at least 1");
        }
        if num_q_heads == 0 || !num_q_heads.is_multiple_of(num_kv_heads) {
            return invalid("num_q_heads", num_q_heads, "must be a positive multiple of num_kv_heads");
        }
        for (field, dim) in [("head_dim", head_dim), ("head_dim_v", head_dim_v)] {
            if dim == 0 || dim % 4 != 0 || dim > Self::MAX_HEAD_DIM {
                return invalid(field, dim, "must be a multiple of 4 from 4 to 256");
            }
        }
        for (field, len) in [("seq_len_q", self.shape.seq_len_q), ("seq_len_kv", self.shape.seq_len_kv)] {
            if len > Self::MAX_SEQ_LEN {
                return invalid(field, len, "must be below 2^29, so that positions fit signed 32-bit arithmetic");
            }
        }
        for (what, shape) in [
            ("elements of q", self.shape.q()),
            ("elements of k", self.shape.k()),
            ("elements of v", self.shape.v()),
            ("elements of out", self.shape.out()),
        ] {
            // Even with an empty axis the other sizes are multiplied elsewhere.
            let needed = shape.iter().fold(1u64, |n, &axis| n.saturating_mul(axis.max(1).into()));
            if needed > Self::MAX_ELEMENTS {
                return Err(Error::TooLarge { what, needed, available: Self::MAX_ELEMENTS });
            }
        }
        let scale = self.softmax_scale();
        if !scale.is_finite() {
            return Err(Error::Scale { value: scale });
        }
        if self.seq_lens_kv {
            self.check_lengths_of_their_own()?;
        }
        if self.bf16_by_f16_matrices {
            let wrong = |rule| Err(Error::Argument { argument: "bf16_by_f16_matrices", rule });
            if self.dtype != DType::BF16 {
                return wrong("is for q, k and v of bf16, and this problem has others");
            }
            if self.blocks.is_some() {
                return wrong(
                    "is for dense attention: with lists of blocks no storage buffer is left for the exponents",
                );
            }
        }
        if let Some(blocks) = &self.blocks {
            blocks.validate(&self.shape, self.mask)?;
        }
        self.check_score_mods()
    }
}
