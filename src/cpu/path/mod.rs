//! The CPU path: rows are dealt to tasks (`deal`), which take tiles or single keys (`tile`, `stream`) of a walk (`walk`); selections go
//! their own way (`select`).

mod attend;
mod deal;
mod select;
mod sequence;
mod simd;
mod stream;
mod tile;
mod walk;

pub use attend::{CpuTiling, attend, attend_with_tiling};
pub use select::{StageCache, select, select_from};
