//! The public verbs: prepare → bind → encode.

mod attend;
mod bind;
mod merge;
mod one_shot;
mod sparse_one_shot;
mod workspace;

pub use attend::{Attention, AttentionArgs, BoundAttention};
pub use bind::U32View;
pub use merge::{BoundMerge, Merge, MergeArgs};
pub use workspace::Workspace;
