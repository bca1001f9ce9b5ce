//! The CPU path: tiles, streams and vectors, for speed.

mod attend;
mod attend_selected;
pub(super) mod block_score;
pub(super) mod pool;
mod select;
mod sequence;
mod simd;
mod stream;
mod stream_selected;
mod tile;
mod top_k;
mod walk;

pub use attend::{CpuTiling, attend, attend_with_tiling};
pub use block_score::block_scores;
pub use pool::pool;
pub use select::{StageCache, select, select_from};
pub use top_k::top_k;
