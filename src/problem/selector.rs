//! The interface of a method that selects blocks, and the operators that a method may consist of.

use core::any::Any;
use core::fmt::Debug;
use core::panic::{RefUnwindSafe, UnwindSafe};

use super::kernel_step::KernelStep;
use super::pool::PoolProblem;
use super::{BlockListSpec, BlockScoreProblem, Granularity, Mask, SelectionProblem, TopKProblem};
use crate::{AttentionShape, Error, Result};

/// A way to find blocks: its sizes, rules and schedule, and the operators that compute it. `Hip` and `InfiniteHip` have kernels of their
/// own instead of [`steps`](Self::steps); a method of another crate is a list of this crate's operators, so that GPUs, the CPU and the
/// oracle all compute it.
///
/// ```
/// use wattn::{
///     AttentionShape, BlockListSpec, BlockScoreProblem, BlockScoring, DType, Engine, Granularity, HostTensor, PoolProblem,
///     Pooling, SelectionInputs, SelectionProblem, Selector, SelectorStep, TopKProblem,
/// };
///
/// /// The blocks whose mean key fits the query best.
/// #[derive(Clone, Debug, PartialEq)]
/// struct BestMeans;
///
/// impl Selector for BestMeans {
///     fn name(&self) -> &str {
///         "best means"
///     }
///     fn lists(&self, _: &AttentionShape, granularity: Granularity) -> BlockListSpec {
///         BlockListSpec::new(1, 16, 4).with_granularity(granularity)
///     }
///     fn steps(&self, problem: &SelectionProblem) -> Vec<SelectorStep> {
///         let (shape, dtype) = (*problem.shape(), problem.dtype());
///         let score = BlockScoreProblem::new(shape, dtype, 16, BlockScoring::Dot).with_granularity(problem.granularity());
///         let best = TopKProblem::new(score.scores_shape(), 4).with_block_size(16).with_forced_last(1);
///         vec![
///             SelectorStep::pool(PoolProblem::new(shape.k(), dtype, 16, Pooling::Mean), "means"),
///             SelectorStep::score(score, "means", "scores"),
///             SelectorStep::top_k(best, "scores"),
///         ]
///     }
/// }
///
/// let shape = AttentionShape {
///     batch_size: 1, seq_len_q: 1, seq_len_kv: 256, num_q_heads: 2, num_kv_heads: 1, head_dim: 8, head_dim_v: 8,
/// };
/// let problem = SelectionProblem::new(shape, DType::F32, BestMeans);
/// let (q, k) = (HostTensor::<f32>::zeros(shape.q()), HostTensor::zeros(shape.k()));
/// let lists = Engine::Oracle.select(&problem, &SelectionInputs::new(&q, &k)).wait()?;
/// assert_eq!(lists.list(0, 0, 0), [0, 16, 32, 240]); // all tie: the first ones, and the one that is forced
/// # Ok::<(), wattn::Error>(())
/// ```
pub trait Selector: AnySelector + Debug + Send + Sync + UnwindSafe + RefUnwindSafe {
    /// The name in reports.
    fn name(&self) -> &str;

    /// The sizes of its lists, where query heads share a list by `granularity`. [`SelectionProblem`] sets the granularity and
    /// `dense_below`.
    fn lists(&self, shape: &AttentionShape, granularity: Granularity) -> BlockListSpec;

    /// The operators that compute it, in order; the last one is a top-k that writes the lists. Sizes, types and mask are those of the
    /// problem. Lengths of sequences need no mention: each step takes them where the problem has some. Where the top-k
    /// [takes marks](TopKProblem::with_marks), every call gives them.
    fn steps(&self, problem: &SelectionProblem) -> Vec<SelectorStep>;

    /// The query heads that share a list, unless the problem sets a granularity.
    fn granularity(&self) -> Granularity {
        Granularity::QueryHead
    }

    /// Checks the rules of its own numbers.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Argument`], naming the field, its value and the rule.
    fn validate(&self, mask: Mask) -> Result<()> {
        let _ = mask;
        Ok(())
    }

    /// Number of stages that may be computed separately. A list of operators is one stage.
    fn num_stages(&self) -> usize {
        1
    }

    /// Number of decode steps that use the result of a stage, from 1.
    fn refresh_interval(&self, stage: usize) -> u32 {
        let _ = stage;
        1
    }

    /// Number of keys of the window that are candidates too.
    fn margin(&self, shape: &AttentionShape) -> Margin {
        let _ = shape;
        let needed = self.refresh_interval(0).saturating_sub(1);
        Margin {
            needed,
            default: needed,
            rule: "must be at least refresh_interval - 1: keys leave the window meanwhile",
        }
    }

    /// Number of keys up to which dense attention takes no longer on CPUs and software devices, for this number of queries.
    fn crossover(&self, seq_len_q: u32) -> u32 {
        let _ = seq_len_q;
        4096
    }

    /// Largest number of keys that it keeps in any stage.
    fn keys_kept(&self, problem: &SelectionProblem) -> u32 {
        let blocks = problem.blocks();
        blocks.max_blocks.saturating_mul(blocks.block_size)
    }

    /// The vectors that stand for the queries of a block in a stage.
    fn sampling(&self, stage: usize) -> QuerySampling {
        let _ = stage;
        QuerySampling::Stride(1)
    }

    /// Stride of the scored keys of a block: the last key of each stride is scored.
    fn key_stride(&self) -> u32 {
        1
    }

    /// Whether a list is the union of the selections of its heads.
    fn unites_heads(&self) -> bool {
        false
    }

    /// Number of blocks from the end of the sinks on that it chooses among, for the query block whose first and last query are at these
    /// positions.
    fn num_candidates(&self, problem: &SelectionProblem, seq_len_kv: u32, first_and_last: [i64; 2]) -> u32 {
        problem.num_candidate_blocks(first_and_last[1], seq_len_kv)
    }

    /// For benchmarks: the number of keys, or vectors that stand for keys, that are compared with a query block, and of queries of the
    /// block that stand for it.
    fn num_probes(&self, shape: &AttentionShape) -> [u64; 2] {
        let lists = self.lists(shape, self.granularity());
        let queries = lists.block_size_q.min(shape.seq_len_q);
        [shape.seq_len_kv.div_ceil(lists.block_size.max(1)).into(), queries.into()]
    }
}

/// Keys of the window that are candidates too: see [`SelectionProblem::with_margin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Margin {
    /// The smallest margin: keys that leave the window of a block's last query while its list is in use.
    pub needed: u32,
    /// The margin where the problem sets none.
    pub default: u32,
    /// The rule in the error where the problem's margin is too small.
    pub rule: &'static str,
}

/// The vectors that stand for the queries of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuerySampling {
    /// The last query of every stride.
    Stride(u32),
    /// The mean of the queries of every stride.
    Mean(u32),
}

/// One operator of a [`Selector`]. Tensors between operators have names, and live in the selection's memory: a name is written by one
/// step, and read by later ones.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SelectorStep {
    /// Summaries of the blocks of k.
    Pool {
        /// The operator.
        problem: PoolProblem,
        /// The name of the summaries.
        summaries: &'static str,
    },
    /// Scores of blocks by their summaries and q.
    Score {
        /// The operator.
        problem: BlockScoreProblem,
        /// The name of the summaries to read.
        summaries: &'static str,
        /// The name of the scores.
        scores: &'static str,
    },
    /// The lists: the best blocks of each row of scores.
    TopK {
        /// The operator. Its marks, where it takes some, come with each call:
        /// [`SelectionInputs::with_marks`](crate::SelectionInputs::with_marks).
        problem: TopKProblem,
        /// The scores that are read.
        scores: &'static str,
    },
    /// A kernel of one's own.
    Kernel(Box<KernelStep>),
}

impl From<KernelStep> for SelectorStep {
    fn from(step: KernelStep) -> Self {
        Self::Kernel(Box::new(step))
    }
}

impl SelectorStep {
    /// Summaries of the blocks of k.
    #[must_use]
    pub const fn pool(problem: PoolProblem, summaries: &'static str) -> Self {
        Self::Pool { problem, summaries }
    }

    /// Scores of blocks by their summaries and q.
    #[must_use]
    pub const fn score(problem: BlockScoreProblem, summaries: &'static str, scores: &'static str) -> Self {
        Self::Score { problem, summaries, scores }
    }

    /// The lists: the best blocks of each row of scores.
    #[must_use]
    pub const fn top_k(problem: TopKProblem, scores: &'static str) -> Self {
        Self::TopK { problem, scores }
    }

    /// The tensor that it writes; `None`: the lists.
    pub(crate) fn written(&self) -> Option<(&'static str, [u32; 4])> {
        match self {
            Self::Pool { problem, summaries } => Some((summaries, problem.summaries_shape())),
            Self::Score { problem, scores, .. } => Some((scores, problem.scores_shape())),
            Self::TopK { .. } => None,
            Self::Kernel(step) => Some((step.written()?, step.shape)),
        }
    }

    /// The tensor of an earlier step that it reads, of that shape. A kernel takes tensors of any.
    const fn read(&self) -> Option<(&'static str, [u32; 4])> {
        match self {
            Self::Pool { .. } | Self::Kernel(_) => None,
            Self::Score { problem, summaries, .. } => Some((summaries, problem.summaries_shape())),
            Self::TopK { problem, scores } => Some((scores, problem.shape())),
        }
    }

    /// Whether it has the sizes, the type and the mask of the selection.
    fn is_of(&self, selection: &SelectionProblem) -> bool {
        match self {
            Self::Pool { problem, .. } => problem.shape() == selection.k_shape() && problem.dtype() == selection.dtype,
            Self::Score { problem, .. } => {
                (problem.shape, problem.dtype, problem.mask) == (selection.shape, selection.dtype, selection.mask)
            }
            Self::Kernel(step) => !(selection.seq_lens_kv && step.reads().any(|name| name == "k")),
            Self::TopK { problem, .. } => {
                let blocks = selection.blocks();
                problem.lists_shape() == blocks.indices_shape(&selection.shape)
                    && problem.block_size() == blocks.block_size
            }
        }
    }

    /// The same for sequences that have lengths.
    fn with_lens(self) -> Self {
        match self {
            Self::Pool { problem, summaries } => Self::Pool { problem: problem.with_seq_lens(), summaries },
            Self::Score { problem, summaries, scores } => {
                Self::Score { problem: problem.with_seq_lens_kv(), summaries, scores }
            }
            Self::TopK { .. } | Self::Kernel(_) => self,
        }
    }
}

/// The checked steps of a selection by a method without kernels of its own.
pub(crate) fn checked_steps(problem: &SelectionProblem, selector: &dyn Selector) -> Result<Vec<SelectorStep>> {
    let broken = |rule| Err(Error::Argument { argument: "steps", rule });
    let steps = selector.steps(problem);
    let mut written: Vec<(&str, [u32; 4])> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match step {
            SelectorStep::Pool { problem, .. } => problem.validate()?,
            SelectorStep::Score { problem, .. } => problem.validate()?,
            SelectorStep::TopK { problem, .. } => problem.validate()?,
            SelectorStep::Kernel(step) => {
                step.check(&problem.shape, &written.iter().map(|(name, _)| *name).collect::<Vec<_>>())?;
            }
        }
        if !step.is_of(problem) {
            if matches!(step, SelectorStep::Kernel(_)) {
                return broken("that are kernels of one's own read k of sequences without lengths only");
            }
            return broken(
                "must have the selection's shape, dtype and mask, and its lists the sizes that `lists` gives",
            );
        }
        if step.read().is_some_and(|read| !written.contains(&read)) {
            return broken("may read what an earlier step wrote, of that shape");
        }
        match step.written() {
            Some((name, _)) if written.iter().any(|(other, _)| *other == name) => {
                return broken("must write each tensor once");
            }
            Some(tensor) => written.push(tensor),
            None if index + 1 < steps.len() => return broken("must end with the top-k"),
            None => {}
        }
    }
    if !matches!(steps.last(), Some(SelectorStep::TopK { .. })) {
        return broken("must end with a top-k, which writes the lists");
    }
    let lens = problem.seq_lens_kv;
    Ok(steps.into_iter().map(|step| if lens { step.with_lens() } else { step }).collect())
}

/// Operations that every [`Selector`] has through its type: it can be compared, and recognised.
#[doc(hidden)]
pub trait AnySelector: Any {
    fn as_any(&self) -> &dyn Any;
    fn equals(&self, other: &dyn Any) -> bool;
}

impl<T: Any + PartialEq> AnySelector for T {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref() == Some(self)
    }
}
