//! The crate's own kernels and modules: one file per kernel of `shaders/`, with its bindings and its constants.

mod attend_decode;
pub(crate) mod attend_prefill;
pub(crate) mod check_blocks;
mod check_matrices;
pub(crate) mod find_exponents;
pub(crate) mod merge_splits;
pub(crate) mod modifiers;
pub mod modules;
pub(crate) mod places;
mod pool_blocks;
pub(crate) mod sample_queries;
mod score_blocks;
pub(crate) mod score_chunks;
pub(crate) mod search_tree;
mod select_chunks;
mod select_top_k;
pub(crate) mod stretch;

pub use attend_decode::ATTEND_DECODE;
pub use attend_prefill::ATTEND_PREFILL;
pub use check_blocks::CHECK_BLOCKS;
pub use check_matrices::CHECK_MATRICES;
pub use find_exponents::FIND_EXPONENTS;
pub use merge_splits::MERGE_SPLITS;
pub use pool_blocks::POOL_BLOCKS;
pub use sample_queries::SAMPLE_QUERIES;
pub use score_blocks::SCORE_BLOCKS;
pub use score_chunks::SCORE_CHUNKS;
pub use search_tree::SEARCH_TREE;
pub use select_chunks::SELECT_CHUNKS;
pub use select_top_k::SELECT_TOP_K;

use crate::shader::{Binding, Kernel};

/// The kernels of `shaders/` that have twins: all but those of models, of `bench` and of the check of matrices.
pub static ALL: &[&Kernel] = &[
    &ATTEND_PREFILL,
    &ATTEND_DECODE,
    &FIND_EXPONENTS,
    &MERGE_SPLITS,
    &SAMPLE_QUERIES,
    &SEARCH_TREE,
    &SCORE_CHUNKS,
    &SELECT_CHUNKS,
    &CHECK_BLOCKS,
    &POOL_BLOCKS,
    &SCORE_BLOCKS,
    &SELECT_TOP_K,
];

/// A kernel of the crate's own: its folder, its stem, its bindings.
macro_rules! own_kernel {
    ($stem:literal, $bindings:expr) => {
        crate::kernels::own_kernel!("", "", $stem, $bindings)
    };
    ($folder:literal, $label:literal, $stem:literal, $bindings:expr) => {
        crate::shader::Kernel::own(
            $stem,
            concat!("wattn.", $label, $stem),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $folder, $stem, ".wgsl")),
        )
        .binding($bindings)
    };
}
pub(crate) use own_kernel;

/// Declares a uniform struct of 4-byte scalars together with the names of its fields, which the layout test compares with its
/// WGSL.
macro_rules! params {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name { $(pub(crate) $field: $ty,)* }

        impl $name {
            pub(crate) const FIELDS: &'static [&'static str] = &[$(stringify!($field),)*];
        }

        const _: () = assert!(size_of::<$name>() == 4 * $name::FIELDS.len());
    };
}
pub(crate) use params;
