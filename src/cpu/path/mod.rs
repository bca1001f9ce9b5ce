//! The CPU path: rows are dealt to tasks (`deal`), which take tiles or single keys (`tile`, `stream`) of a walk (`walk`); selections go
//! their own way (`select`).

mod attend;
mod block_score;
mod deal;
mod pool;
mod select;
mod sequence;
mod simd;
mod stream;
mod tile;
mod top_k;
mod walk;

pub use attend::{CpuTiling, attend, attend_with_tiling};
pub use block_score::block_scores;
pub use pool::pool;
pub use select::{StageCache, select, select_from};
pub use top_k::top_k;
