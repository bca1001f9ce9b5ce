//! One file per kernel of `shaders/`: its bindings, its parameters, its constants.

pub(crate) mod attend_decode;
pub(crate) mod attend_prefill;
pub(crate) mod binding;
pub(crate) mod check_blocks;
pub(crate) mod find_exponents;
pub(crate) mod merge_splits;
pub(crate) mod sample_queries;
pub(crate) mod score_chunks;
pub(crate) mod search_tree;
pub(crate) mod select_chunks;

pub use binding::{Binding, BindingKind};

/// Declares the kernels: variant, stem, uniform, and what the kernel does.
macro_rules! kernels {
    ($($(#[$meta:meta])* $variant:ident = $stem:ident, $params:path;)*) => {
        /// A kernel. Its name is the stem of its WGSL file, host file and CPU twin, and its entry point.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum KernelId { $($(#[$meta])* $variant,)* }

        impl KernelId {
            /// Every kernel.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stem.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($stem),)* }
            }

            /// The label of its wgpu objects.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => concat!("wattn.", stringify!($stem)),)* }
            }

            /// Bind group 0, without what the modules of a variant add.
            #[must_use]
            pub const fn bindings(self) -> &'static [Binding] {
                match self { $(Self::$variant => &$stem::BINDINGS,)* }
            }

            pub(crate) const fn source(self) -> &'static str {
                match self {
                    $(Self::$variant => include_str!(concat!("../../shaders/", stringify!($stem), ".wgsl")),)*
                }
            }

            /// Names and byte offsets of the fields of the uniform, for comparison with the WGSL struct.
            #[must_use]
            pub fn params_fields(self) -> Vec<(&'static str, usize)> {
                match self { $(Self::$variant => <$params>::fields(),)* }
            }
        }
    };
}

kernels! {
    /// Tiles of query rows against all their keys.
    AttendPrefill = attend_prefill, attend_prefill::AttendParams;
    /// Few query rows against one split of their keys.
    AttendDecode = attend_decode, attend_prefill::AttendParams;
    /// Largest exponents of the heads of q, k and v.
    FindExponents = find_exponents, attend_prefill::AttendParams;
    /// Merge of partial (out, lse) pairs.
    MergeSplits = merge_splits, merge_splits::MergeParams;
    /// Samples of query blocks, for the scores of a selection.
    SampleQueries = sample_queries, sample_queries::SelectParams;
    /// HiP's beam search through the tree of keys.
    SearchTree = search_tree, sample_queries::SelectParams;
    /// Scores of the chunks of one stage of InfiniteHiP.
    ScoreChunks = score_chunks, sample_queries::SelectParams;
    /// The best chunks of one stage of InfiniteHiP.
    SelectChunks = select_chunks, sample_queries::SelectParams;
    /// Check of lists of blocks.
    CheckBlocks = check_blocks, check_blocks::CheckParams;
}

/// Declares a uniform struct of 4-byte scalars together with the table that the layout test compares with its WGSL.
macro_rules! params {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        pub(crate) struct $name { $(pub(crate) $field: $ty,)* }

        impl $name {
            pub(crate) fn fields() -> Vec<(&'static str, usize)> {
                vec![$((stringify!($field), core::mem::offset_of!(Self, $field)),)*]
            }
        }
    };
}
pub(crate) use params;
