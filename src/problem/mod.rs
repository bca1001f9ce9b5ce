//! What to compute: plain data, no wgpu types.
//!
//! Vocabulary: a workgroup holds a *tile* on chip; a *split* is a slice of a reduction over keys; a *block* is the unit of sparsity,
//! `block_size` neighbouring keys. A *query block* is `block_size_q` neighbouring queries that share a list of blocks.

mod attend;
mod block_score;
mod blocks;
mod given;
mod hip;
mod infinite_hip;
mod inputs;
mod kernel_step;
mod mask;
mod merge;
mod modify;
mod pool;
mod scores;
mod select;
mod selector;
mod sinks;
mod top_k;
mod visibility;

pub use attend::{AttentionProblem, AttentionShape};
pub use block_score::{BlockScoreProblem, BlockScoring, Reduction};
pub use blocks::{BlockListSpec, Granularity, HostBlockLists, PADDING};
pub(crate) use given::exactly_when;
pub use hip::{GroupBounds, Hip, Representative};
pub use infinite_hip::{HeadReduction, InfiniteHip, Preset, Stage};
pub use inputs::{AttentionOutput, HostInputs, SelectionInputs};
pub(crate) use inputs::{all_known, check_lens, one_named, validate_seq_lens};
pub use kernel_step::{KernelInputs, KernelStep};
pub use mask::Mask;
pub use merge::MergeProblem;
pub use modify::{Alibi, BatchIndex, Bias, ScoreMod, Softcap, published_slopes};
pub use pool::{PoolProblem, Pooling};
pub use select::{SelectionMethod, SelectionProblem};
pub(crate) use selector::checked_steps;
pub use selector::{AnySelector, Margin, QuerySampling, Selector, SelectorStep};
pub use sinks::Sinks;
pub use top_k::{MASKED_SCORE, Mark, TopKProblem};
pub use visibility::SeenKeys;
