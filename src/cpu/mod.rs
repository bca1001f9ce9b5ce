//! Attention on the CPU: the definition ([`oracle`]), the blockwise path that runs where there is no GPU ([`attend`]),
//! and the [`twins`] of the GPU kernels.

pub mod oracle;
mod path;
pub mod twins;

pub use path::{CpuTiling, StageCache, attend, attend_with_tiling, block_scores, pool, select, select_from, top_k};
pub use twins::merge_splits as merge;
