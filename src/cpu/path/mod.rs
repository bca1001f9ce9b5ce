//! The CPU path: rows are divided into tasks (`deal`), which go through a walk (`walk`) by tiles (`tile`) or key by key (`stream`).
//! Selections have files of their own (`select`).

mod attend;
mod block_score;
mod deal;
mod lists;
mod modify;
mod pool;
mod select;
mod sequence;
mod simd;
mod stream;
mod tile;
mod tiling;
mod top_k;
mod walk;

pub use attend::{attend, attend_with_tiling};
pub use block_score::block_scores;
pub use pool::pool;
pub use select::{StageCache, select, select_from};
pub use tiling::CpuTiling;
pub use top_k::top_k;
