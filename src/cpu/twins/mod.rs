//! The GPU kernels in f32 on the CPU: one twin for each kernel, of the same name.
//!
//! A twin cuts the problem as its kernel does and adds in the same order: the same tiles of keys, the same rescalings, the same partial
//! sums of each lane. The two differ only where a device is free: the accuracy of its `exp2`, `exp` and `log2`, whether `fma` rounds
//! once or twice, and the order in which a subgroup adds. So a twin tells an error of a kernel from an error of its algorithm: tests
//! compare the kernel with its twin tightly, and both with the [`oracle`](super::oracle), the reference.
//!
//! Twins take contiguous tensors in host memory and give f32; they know neither strides nor the rounding of `out`. They are written
//! for readers, and are slow; [`attend`](crate::cpu::attend()) is the CPU path.

mod attend_decode;
mod attend_prefill;
mod attend_rows;
mod attend_rows_columns;
mod attend_rows_matrix;
mod check_blocks;
mod find_exponents;
mod merge_splits;
mod modify;
mod sample_queries;
mod score_chunks;
mod search_tree;
mod select_chunks;
mod walk;

pub use attend_decode::{Partials, attend_decode};
pub use attend_prefill::attend_prefill;
pub use check_blocks::check_blocks;
pub use find_exponents::find_exponents;
pub use merge_splits::merge as merge_splits;
pub use sample_queries::sample_queries;
pub use score_chunks::{Survivors, score_chunks};
pub use search_tree::search_tree;
pub use select_chunks::{select_chunks, select_stages};
