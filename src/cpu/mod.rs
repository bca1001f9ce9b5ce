//! Attention on the CPU: the definition ([`oracle`]), the blockwise path that runs where there is no GPU ([`attend`]),
//! and the [`twins`] of the GPU kernels.

mod attend;
mod attend_decode;
mod attend_prefill;
mod attend_rows;
mod attend_rows_columns;
mod attend_rows_matrix;
mod attend_selected;
mod check_blocks;
mod find_exponents;
mod merge_splits;
pub mod oracle;
mod sample_queries;
mod score_chunks;
mod search_tree;
mod select;
mod select_chunks;
mod sequence;
mod simd;
mod stream;
mod stream_selected;
mod tile;
mod twin_walk;
pub mod twins;
mod walk;

pub use attend::{CpuTiling, attend, attend_with_tiling};
pub use merge_splits::merge;
pub use select::{StageCache, select, select_from};

use crate::{AttentionOutput, HostInputs};
