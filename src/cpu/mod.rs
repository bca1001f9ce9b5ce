//! Attention on the CPU: the definition ([`oracle`]), the blockwise path for machines without a GPU ([`attend`]), and the [`twins`] of
//! the GPU kernels. Without the feature `cpu` there are only the definition and the twins.

pub mod oracle;
#[cfg(feature = "cpu")]
mod path;
pub mod twins;

#[cfg(feature = "cpu")]
pub use path::{CpuTiling, StageCache, attend, attend_with_tiling, block_scores, pool, select, select_from, top_k};
#[cfg(feature = "cpu")]
pub use twins::merge_splits as merge;
