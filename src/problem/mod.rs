//! What to compute: plain data, no wgpu types.
//!
//! Vocabulary: a *tile* is what a workgroup holds on chip, a *split* is a slice of a reduction over keys, a *block* is the
//! unit of sparsity: `block_size` neighbouring keys. A *query block* is `block_size_q` neighbouring queries that share a
//! list of blocks.

mod attend;
mod blocks;
mod hip;
mod infinite_hip;
mod inputs;
mod merge;
mod select;
mod visibility;

pub use attend::{AttentionProblem, AttentionShape, Mask};
pub use blocks::{BlockListSpec, Granularity, HostBlockLists, PADDING};
pub use hip::{GroupBounds, Hip, Representative};
pub use infinite_hip::{HeadReduction, InfiniteHip, Preset, Stage};
pub(crate) use inputs::validate_seq_lens;
pub use inputs::{AttentionOutput, HostInputs, SelectionInputs};
pub use merge::MergeProblem;
pub use select::{SelectionMethod, SelectionProblem};
pub use visibility::SeenKeys;
