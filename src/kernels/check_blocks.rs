//! Check of lists of blocks: `shaders/check_blocks.wgsl`.

use super::{Binding, Kernel, own_kernel, params};

const BINDINGS: &[Binding] = &[
    Binding::stretch("params", CheckParams::FIELDS),
    Binding::read("block_indices"),
    Binding::read("block_counts"),
    Binding::read("seq_lens_kv"),
    Binding::write("report"),
];

/// Check of lists of blocks.
pub static CHECK_BLOCKS: Kernel = own_kernel!("check_blocks", BINDINGS);

/// Invocations of a workgroup, each with one entry of a list.
pub(crate) const WORKGROUP_SIZE: u32 = 64;

params! {
    /// The numbers of one check of lists of blocks. Offsets count elements.
    CheckParams {
        seq_len_kv: u32,
        seq_lens_offset: u32,
        max_blocks: u32,
        block_size: u32,
        lists_per_batch: u32,
        num_places: u32,
        indices_offset: u32,
        counts_offset: u32,
    }
}
