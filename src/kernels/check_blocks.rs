//! Check of lists of blocks: `shaders/check_blocks.wgsl`.

use super::{Binding, Kernel, own_kernel, params};
use crate::shader::Constant;

const BINDINGS: &[Binding] = &[Binding::read("block_indices"), Binding::read("block_counts"), Binding::write("report")];

/// Check of lists of blocks.
pub static CHECK_BLOCKS: Kernel = own_kernel!("check_blocks", BINDINGS).declaring(&[
    Constant::u32("COUNT_RULE", COUNT_RULE),
    Constant::u32("ORDER_RULE", ORDER_RULE),
    Constant::u32("RANGE_RULE", RANGE_RULE),
]);

/// Rules that an entry may break; 0 stands for none.
pub(crate) const COUNT_RULE: u32 = 1;
pub(crate) const ORDER_RULE: u32 = 2;
pub(crate) const RANGE_RULE: u32 = 3;

/// Invocations of a workgroup, each with one entry of a list.
pub(crate) const WORKGROUP_SIZE: u32 = 64;

params! {
    /// The numbers of one check of lists of blocks. Offsets count elements.
    CheckParams {
        seq_len_kv: u32,
        max_blocks: u32,
        block_size: u32,
        lists_per_batch: u32,
        num_places: u32,
        indices_offset: u32,
        counts_offset: u32,
    }
}
