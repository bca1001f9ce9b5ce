//! Attention on the CPU: the definition ([`oracle`]), the blockwise path that runs where there is no GPU ([`attend`]),
//! and the [`twins`] of the GPU kernels. Without the feature `cpu` only definition and twins are there.

pub mod oracle;
#[cfg(feature = "cpu")]
mod path;
pub mod twins;

#[cfg(feature = "cpu")]
pub use path::{CpuTiling, StageCache, attend, attend_with_tiling, block_scores, pool, select, select_from, top_k};
#[cfg(feature = "cpu")]
pub use twins::merge_splits as merge;
