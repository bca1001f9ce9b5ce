//! What to compute: plain data, no wgpu types.
//!
//! Vocabulary: a *tile* is what a workgroup holds on chip, a *split* is a slice of a reduction over keys.

mod attend;
mod merge;

pub use attend::{AttentionProblem, AttentionShape, Mask};
pub use merge::MergeProblem;
