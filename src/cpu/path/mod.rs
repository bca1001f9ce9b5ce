//! The CPU path: tiles, streams and vectors, for speed.

mod attend;
mod attend_selected;
mod select;
mod sequence;
mod simd;
mod stream;
mod stream_selected;
mod tile;
mod walk;

pub use attend::{CpuTiling, attend, attend_with_tiling};
pub use select::{StageCache, select, select_from};
