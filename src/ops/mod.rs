//! The public verbs: prepare → bind → encode.

mod attend;
mod bind;
mod bound;
mod check_blocks;
mod lists;
mod merge;
mod one_shot;
mod params;
mod select;
mod sparse_one_shot;
mod workspace;

pub use attend::{Attention, AttentionArgs, BlockListsView, BoundAttention};
pub use bind::U32View;
pub use bound::Bound;
pub(crate) use lists::BlockListBuffers;
pub use merge::{BoundMerge, Merge, MergeArgs};
pub use select::{BoundSelection, Selection, SelectionArgs, SelectionMemory};
pub use workspace::Workspace;
