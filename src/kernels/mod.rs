//! One file per kernel of `shaders/`: its bindings, its parameters, its constants.

pub(crate) mod attend_decode;
pub(crate) mod attend_prefill;
pub(crate) mod binding;
pub(crate) mod merge_splits;

pub use binding::{Binding, BindingKind};

/// A kernel. Its name is the stem of its WGSL file, host file and CPU twin, and its entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KernelId {
    /// Tiles of query rows against all their keys.
    AttendPrefill,
    /// Few query rows against one split of their keys.
    AttendDecode,
    /// Merge of partial (out, lse) pairs.
    MergeSplits,
}

impl KernelId {
    /// Every kernel.
    pub const ALL: [Self; 3] = [Self::AttendPrefill, Self::AttendDecode, Self::MergeSplits];

    /// The stem.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AttendPrefill => "attend_prefill",
            Self::AttendDecode => "attend_decode",
            Self::MergeSplits => "merge_splits",
        }
    }

    /// The label of its wgpu objects.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::AttendPrefill => "wattn.attend_prefill",
            Self::AttendDecode => "wattn.attend_decode",
            Self::MergeSplits => "wattn.merge_splits",
        }
    }

    /// Bind group 0.
    #[must_use]
    pub const fn bindings(self) -> &'static [Binding] {
        match self {
            Self::AttendPrefill => &attend_prefill::BINDINGS,
            Self::AttendDecode => &attend_decode::BINDINGS,
            Self::MergeSplits => &merge_splits::BINDINGS,
        }
    }

    pub(crate) const fn source(self) -> &'static str {
        match self {
            Self::AttendPrefill => include_str!("../../shaders/attend_prefill.wgsl"),
            Self::AttendDecode => include_str!("../../shaders/attend_decode.wgsl"),
            Self::MergeSplits => include_str!("../../shaders/merge_splits.wgsl"),
        }
    }

    /// Names and byte offsets of the fields of the uniform, for comparison with the WGSL struct.
    #[must_use]
    pub fn params_fields(self) -> Vec<(&'static str, usize)> {
        match self {
            Self::AttendPrefill | Self::AttendDecode => attend_prefill::AttendParams::fields(),
            Self::MergeSplits => merge_splits::MergeParams::fields(),
        }
    }
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
