//! Tensors that are added to scores.

use crate::{AttentionShape, DType, Error, Result};

/// `score + bias[batch, head, query, key]`, by a tensor that comes with each call under the bias's name
/// ([`AttentionArgs::with_tensor`](crate::AttentionArgs::with_tensor), [`HostInputs::with_tensors`](crate::HostInputs::with_tensors)). An
/// axis of size 1 serves all its indices. A sum of at most [`LEAST_SCORE`](crate::LEAST_SCORE)
/// hides the key: -infinity, or the least number of f32 or bf16.
///
/// ```
/// use wattn::{Bias, DType};
/// // One number for each head and pair, for all sequences.
/// let relative = Bias::new("relative", [1, 8, 512, 512], DType::F32);
/// // Swin: 4 windows an image, each with a mask of its own; sequence b is window b % 4.
/// let windows = Bias::new("windows", [4, 1, 49, 49], DType::F16).with_batch_index(wattn::BatchIndex::Modulo(4));
/// assert_eq!(relative.name(), "relative");
/// # let _ = windows;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bias {
    name: &'static str,
    shape: [u32; 4],
    dtype: DType,
    batch_index: BatchIndex,
}

/// The index into a bias's first axis for sequence `b` of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BatchIndex {
    /// `b`.
    #[default]
    Each,
    /// `b / n`: neighbouring sequences share a bias (AlphaFold's rows of an alignment).
    Divided(u32),
    /// `b % n`: biases take turns (Swin's windows of an image).
    Modulo(u32),
}

impl BatchIndex {
    pub(crate) const fn of(self, batch: u32) -> u32 {
        match self {
            Self::Each => batch,
            Self::Divided(n) => batch / n,
            Self::Modulo(n) => batch % n,
        }
    }
}

impl Bias {
    /// A bias of shape `[batch, num_q_heads, seq_len_q, seq_len_kv]`, each the problem's or 1.
    #[must_use]
    pub const fn new(name: &'static str, shape: [u32; 4], dtype: DType) -> Self {
        Self { name, shape, dtype, batch_index: BatchIndex::Each }
    }

    /// Sets which bias a sequence takes. The first axis then has as many entries as the rule needs, or 1.
    #[must_use]
    pub const fn with_batch_index(mut self, batch_index: BatchIndex) -> Self {
        self.batch_index = batch_index;
        self
    }

    /// Its name, and that of its tensor.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// `[batch, head, query, key]`.
    #[must_use]
    pub const fn shape(&self) -> [u32; 4] {
        self.shape
    }

    /// How it is stored.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// The rule of its first axis.
    #[must_use]
    pub const fn batch_index(&self) -> BatchIndex {
        self.batch_index
    }

    pub(super) fn validate(&self, shape: &AttentionShape) -> Result<()> {
        let argument = self.name;
        let mut letters = argument.chars();
        let is_name = letters.next().is_some_and(|c| c.is_ascii_lowercase())
            && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && argument.len() <= 32;
        if !is_name {
            let rule = "is no name: it begins with a letter and has at most 32 small letters, digits and `_`";
            return Err(Error::Argument { argument, rule });
        }
        if RESERVED.contains(&argument) {
            return Err(Error::Argument { argument, rule: "is the name of another tensor of attention" });
        }
        let batch = match self.batch_index {
            BatchIndex::Each => shape.batch_size,
            BatchIndex::Divided(n) | BatchIndex::Modulo(n) if n == 0 => {
                return Err(Error::Argument { argument, rule: "has a batch index that divides by 0" });
            }
            BatchIndex::Divided(n) => shape.batch_size.div_ceil(n),
            BatchIndex::Modulo(n) => n,
        };
        let expected = [batch, shape.num_q_heads, shape.seq_len_q, shape.seq_len_kv];
        if self.shape.iter().zip(expected).any(|(&given, full)| given != 1 && given != full) {
            return Err(Error::Shape { tensor: self.name, expected, actual: self.shape });
        }
        let needed = self.shape.iter().fold(1u64, |n, &axis| n.saturating_mul(axis.into()));
        // Kernels count its elements in 32 bits.
        let available = u64::from(u32::MAX);
        if needed > available {
            return Err(Error::TooLarge { what: "elements of a bias", needed, available });
        }
        Ok(())
    }
}

/// Names that errors use for other tensors.
const RESERVED: [&str; 12] = [
    "sinks",
    "q",
    "k",
    "v",
    "out",
    "lse",
    "seq_lens_kv",
    "blocks",
    "block_indices",
    "block_counts",
    "workspace",
    "exponents",
];

impl core::fmt::Display for Bias {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "bias `{}` {:?} {}", self.name, self.shape, self.dtype)
    }
}
