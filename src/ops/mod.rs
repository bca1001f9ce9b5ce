//! The public verbs: prepare → bind → encode.

mod attend;
mod bind;
mod block_score;
mod bound;
#[cfg(not(target_arch = "wasm32"))]
mod calibrate;
mod check_blocks;
mod lists;
#[cfg(not(target_arch = "wasm32"))]
mod measure_speed;
mod merge;
mod modify;
mod one_shot;
mod operator;
mod params;
mod pool;
mod select;
mod select_operators;
mod select_params;
mod sparse_one_shot;
mod top_k;
#[cfg(not(target_arch = "wasm32"))]
mod wake;
mod workspace;

pub use attend::{Attention, AttentionArgs, BlockListsView, BoundAttention};
pub use bind::U32View;
pub use block_score::{BlockScore, BlockScoreArgs};
pub use bound::Bound;
pub(crate) use lists::BlockListBuffers;
pub use merge::{BoundMerge, Merge, MergeArgs};
pub use operator::{BindArgs, Operator};
pub use pool::{Pool, PoolArgs};
pub use select::{BoundSelection, Selection, SelectionArgs, SelectionMemory};
pub use top_k::{TopK, TopKArgs};
pub use workspace::Workspace;
