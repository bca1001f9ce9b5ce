//! What the GPU kernels do, in f32 on the CPU: one twin for each kernel, of the same name.
//!
//! A twin cuts the problem as its kernel does and adds in the same order: the same tiles of keys, the same rescalings,
//! the same partial sums of each lane. The two then differ only in what a device is free to choose: how exact its
//! `exp2`, `exp` and `log2` are, whether `fma` rounds once or twice, and the order in which a subgroup adds. So a twin
//! tells an error of a kernel from an error of its algorithm: tests compare kernel with twin tightly, and both with the
//! [`oracle`](super::oracle), which says what is right.
//!
//! Twins take contiguous tensors in host memory and give f32: strides and the rounding of `out` are not their business.
//! They are written to be read, and are slow; [`attend`](super::attend()) is the CPU path.

pub use super::attend_decode::{Partials, attend_decode};
pub use super::attend_prefill::attend_prefill;
pub use super::check_blocks::check_blocks;
pub use super::find_exponents::find_exponents;
pub use super::merge_splits::merge as merge_splits;
pub use super::sample_queries::sample_queries;
pub use super::score_chunks::{Survivors, score_chunks};
pub use super::search_tree::search_tree;
pub use super::select_chunks::{select_chunks, select_stages};
