//! The public verbs: prepare → bind → encode.

mod attend;
mod bind;
mod check_blocks;
mod lists;
mod merge;
mod one_shot;
mod params;
mod select;
mod sparse_one_shot;
mod workspace;

pub use attend::{Attention, AttentionArgs, BoundAttention, SelectedBlocks};
pub use bind::U32View;
pub(crate) use lists::Lists;
pub use merge::{BoundMerge, Merge, MergeArgs};
pub use select::{BoundSelection, Selection, SelectionArgs, SelectionMemory};
pub use workspace::Workspace;
