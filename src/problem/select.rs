//! Selection of key blocks as a problem.

use std::sync::Arc;

use super::blocks::{BlockListSpec, Granularity};
use super::selector::{Selector, SelectorStep, checked_steps};
use super::{Hip, InfiniteHip, Preset};
use crate::{AttentionShape, DType, Error, Mask, Result};

/// The method that finds blocks. Its sizes and rules come from [`Selector`]. The crate's own two methods have their own kernels, so that
/// plans and engines tell them apart; every other implementation of the trait is a list of operators.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SelectionMethod {
    /// One beam search through a tree of keys.
    Hip(Hip),
    /// Stages of chunks.
    InfiniteHip(InfiniteHip),
    /// A method made of operators.
    Other(Arc<dyn Selector>),
}

impl SelectionMethod {
    /// The method as a [`Selector`].
    #[must_use]
    pub fn selector(&self) -> &dyn Selector {
        match self {
            Self::Hip(hip) => hip,
            Self::InfiniteHip(infinite) => infinite,
            Self::Other(other) => &**other,
        }
    }

    /// Number of keys up to which dense attention takes no longer than a selection and attention to its lists, for this number of
    /// queries. Measured on CPUs and software devices; for a GPU see [`SelectionPlan::crossover`](crate::SelectionPlan::crossover) and
    /// [`docs::performance`](crate::docs::performance). A call with fewer queries than a query block has higher costs per query. Decode
    /// loops with refresh intervals take the number for a prompt.
    ///
    /// [`SelectionProblem::with_dense_below`] with this number makes attention dense below it;
    /// [`Engine::attend_sparse`](crate::Engine::attend_sparse) does so by default.
    #[must_use]
    pub fn crossover(&self, seq_len_q: u32) -> u32 {
        self.selector().crossover(seq_len_q)
    }
}

impl PartialEq for SelectionMethod {
    fn eq(&self, other: &Self) -> bool {
        self.selector().equals(other.selector().as_any())
    }
}

impl<S: Selector> From<S> for SelectionMethod {
    fn from(selector: S) -> Self {
        let any = selector.as_any();
        if let Some(hip) = any.downcast_ref::<Hip>() {
            Self::Hip(*hip)
        } else if let Some(infinite) = any.downcast_ref::<InfiniteHip>() {
            Self::InfiniteHip(infinite.clone())
        } else {
            Self::Other(Arc::new(selector))
        }
    }
}

impl From<Preset> for SelectionMethod {
    fn from(preset: Preset) -> Self {
        Self::InfiniteHip(preset.into())
    }
}

/// Which blocks of keys each query block should attend to, given q and k. The result is plain data
/// ([`HostBlockLists`](crate::HostBlockLists), or two GPU buffers) for [`AttentionProblem::with_blocks`].
///
/// Query `i` of a sequence sits at position `i + seq_len_kv - seq_len_q`; query block `m` holds the queries from
/// `m * block_size_q` on, and the last one may be shorter. Where all candidates fit into a list, it holds all of them.
///
/// [`AttentionProblem::with_blocks`]: crate::AttentionProblem::with_blocks
///
/// ```
/// use wattn::{AttentionShape, DType, Hip, Preset, SelectionProblem};
/// let shape = AttentionShape {
///     batch_size: 1, seq_len_q: 1024, seq_len_kv: 131_072,
///     num_q_heads: 32, num_kv_heads: 8, head_dim: 128, head_dim_v: 128,
/// };
/// let hip = SelectionProblem::new(shape, DType::F16, Hip::default());
/// hip.validate()?;
/// assert_eq!(hip.blocks().indices_shape(&shape), [1, 32, 16, 256]); // a list for each query head
/// let infinite = SelectionProblem::new(shape, DType::F16, Preset::ThreeK);
/// assert_eq!(infinite.blocks().indices_shape(&shape), [1, 1, 16, 256]); // one for the layer
/// # Ok::<(), wattn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SelectionProblem {
    pub(crate) shape: AttentionShape,
    pub(crate) dtype: DType,
    pub(crate) method: SelectionMethod,
    pub(crate) granularity: Granularity,
    pub(crate) mask: Mask,
    pub(crate) scale: Option<f32>,
    pub(crate) margin: Option<u32>,
    pub(crate) dense_below: u32,
    pub(crate) seq_lens_kv: bool,
}

impl SelectionProblem {
    /// Causal; with HiP a list for each query head, with InfiniteHiP one for the layer; no query block is dense.
    /// `shape.head_dim_v` plays no part.
    #[must_use]
    pub fn new(shape: AttentionShape, dtype: DType, method: impl Into<SelectionMethod>) -> Self {
        let method = method.into();
        let granularity = method.selector().granularity();
        Self {
            shape,
            dtype,
            method,
            granularity,
            mask: Mask::Causal,
            scale: None,
            margin: None,
            dense_below: 0,
            seq_lens_kv: false,
        }
    }

    /// Sets which query heads share a list.
    #[must_use]
    pub const fn with_granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// Sets the mask: [`Mask::Causal`], or [`Mask::Full`] for HiP without window and sinks.
    #[must_use]
    pub const fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }

    /// Sets the factor on q·k in scores [default: `1 / sqrt(head_dim)`]. It is multiplied into q first, as callers of the
    /// published code do; 1 leaves q as it is. A negative one prefers small products, as a softmax with that scale does; with 0
    /// all scores tie.
    #[must_use]
    pub const fn with_selection_scale(mut self, scale: f32) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Sets the number of keys at the window's far end that are candidates too [default: as few as the refresh interval allows, and for
    /// InfiniteHiP at least the first stage's chunk size].
    #[must_use]
    pub const fn with_margin(mut self, keys: u32) -> Self {
        self.margin = Some(keys);
        self
    }

    /// Query blocks whose last query is at a position below `len` select nothing and attend densely. See
    /// [`BlockListSpec::dense_below`].
    #[must_use]
    pub const fn with_dense_below(mut self, len: u32) -> Self {
        self.dense_below = len;
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

    /// Which query heads share a list.
    #[must_use]
    pub const fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Query blocks whose last query is at a position below this select nothing.
    #[must_use]
    pub const fn dense_below(&self) -> u32 {
        self.dense_below
    }

    /// Whether the key length of each sequence comes with the call.
    #[must_use]
    pub const fn seq_lens_kv(&self) -> bool {
        self.seq_lens_kv
    }

    /// Storage of q and k.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// The method that finds blocks.
    #[must_use]
    pub const fn method(&self) -> &SelectionMethod {
        &self.method
    }

    /// The mask.
    #[must_use]
    pub const fn mask(&self) -> Mask {
        self.mask
    }

    /// The factor on q·k in scores.
    #[must_use]
    pub fn selection_scale(&self) -> f32 {
        self.scale.unwrap_or_else(|| (1.0 / f64::from(self.shape.head_dim).sqrt()) as f32)
    }

    /// Keys of the window that are candidates too: the number set by [`with_margin`](Self::with_margin), or its default.
    #[must_use]
    pub fn margin(&self) -> u32 {
        self.margin.unwrap_or_else(|| self.method.selector().margin(&self.shape).default)
    }

    /// Number of decode steps for which the longest-lived part of a selection is used.
    pub(crate) fn refresh_interval(&self) -> u32 {
        self.method.selector().refresh_interval(0)
    }

    /// Whether a query block selects nothing and attends densely.
    pub(crate) fn is_dense(&self, p_max: i64) -> bool {
        self.blocks().is_dense(p_max)
    }

    /// `W'`: keys closer to a query than this are not candidates. Causal masks only.
    pub(crate) fn candidate_window(&self) -> u32 {
        self.blocks().window_size.saturating_sub(self.margin())
    }

    /// The number of blocks from the end of the sinks on that HiP chooses among, for a query block whose last query is at `p_max`.
    pub(crate) fn num_candidate_blocks(&self, p_max: i64, seq_len_kv: u32) -> u32 {
        let blocks = self.blocks();
        let end = match self.mask {
            Mask::Full => i64::from(seq_len_kv),
            // `validate` rejects the other masks.
            Mask::Causal | Mask::Window { .. } | Mask::CausalAt { .. } => {
                p_max + 1 - i64::from(self.candidate_window())
            }
        };
        // At most seq_len_kv, a u32.
        ((end - i64::from(blocks.sink_size)).max(0) as u32).div_ceil(blocks.block_size)
    }

    /// The sizes and rules of the lists, as attention needs them.
    #[must_use]
    pub fn blocks(&self) -> BlockListSpec {
        let lists = self.method.selector().lists(&self.shape, self.granularity);
        BlockListSpec { granularity: self.granularity, dense_below: self.dense_below, ..lists }
    }

    /// `[batch, set, q_block, block]` of the [marks](crate::Mark) that each call gives; `None` where the method takes none. HiP and
    /// InfiniteHiP take none.
    #[must_use]
    pub fn marks_shape(&self) -> Option<[u32; 4]> {
        match self.method.selector().steps(self).last() {
            Some(SelectorStep::TopK { problem, .. }) if problem.marks => Some(problem.shape()),
            _ => None,
        }
    }

    /// The first stage to compute at a decode step, counted from 0 at the start of a sequence; `None` when the lists of
    /// an earlier step are used. HiP has one stage.
    ///
    /// At a step, InfiniteHiP recomputes the stages from the first one whose interval divides the step: with intervals 16, 8 and 4, step 8
    /// starts at stage 1, from the chunks that stage 0 kept at step 0.
    #[must_use]
    pub fn first_stage(&self, step: u64) -> Option<usize> {
        let due = |interval: u32| step.is_multiple_of(interval.max(1).into());
        let selector = self.method.selector();
        (0..selector.num_stages()).find(|&stage| due(selector.refresh_interval(stage)))
    }

    /// Stages of the method: 1 for HiP.
    #[must_use]
    pub fn num_stages(&self) -> usize {
        self.method.selector().num_stages()
    }

    /// Checks the rules that need no device.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Argument`] or [`Error::Scale`], naming the field, its value and the rule.
    pub fn validate(&self) -> Result<()> {
        crate::AttentionProblem::new(self.shape, self.dtype).validate()?;
        let selector = self.method.selector();
        selector.validate(self.mask)?;
        self.blocks().validate(&self.shape, self.mask)?;
        let scale = self.selection_scale();
        if !scale.is_finite() {
            return Err(Error::SelectionScale { value: scale });
        }
        let (interval, window_size) = (self.refresh_interval(), self.blocks().window_size);
        if self.mask == Mask::Causal && self.shape.seq_len_q == 1 && interval > window_size.saturating_add(1) {
            let rule =
                "must be at most window_size + 1: keys newer than a refresh would leave the window before the next";
            return Err(Error::Invalid { field: "refresh_interval", value: interval.into(), rule });
        }
        if let Some(margin) = self.margin {
            let invalid = |rule| Err(Error::Invalid { field: "margin", value: margin.into(), rule });
            let wanted = selector.margin(&self.shape);
            if margin < wanted.needed {
                return invalid(wanted.rule);
            }
            if margin > crate::AttentionProblem::MAX_SEQ_LEN {
                return invalid("must be below 2^29, so that positions fit signed 32-bit arithmetic");
            }
        }
        match &self.method {
            SelectionMethod::Hip(_) | SelectionMethod::InfiniteHip(_) => Ok(()),
            SelectionMethod::Other(other) => checked_steps(self, &**other).map(drop),
        }
    }
}
