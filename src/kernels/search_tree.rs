//! HiP's beam search, all its rounds in one dispatch: `shaders/search_tree.wgsl`. Besides the
//! uniform of `sample_queries` it has one of its own.

use super::{Binding, Kernel, own_kernel, params};
use crate::PADDING;
use crate::shader::Constant;

const BINDINGS: &[Binding] = &[
    Binding::uniform("hip", HipParams::FIELDS),
    Binding::read("samples"),
    Binding::read("k"),
    Binding::write("scratch"),
    Binding::write("block_indices"),
    Binding::write("block_counts"),
];

/// HiP's beam search through the tree of keys.
pub static SEARCH_TREE: Kernel = own_kernel!("search_tree", BINDINGS).declaring(&[Constant::u32("PADDING", PADDING)]);

params! {
    /// The numbers of a search by HiP.
    HipParams {
        block_size: u32,
        stride_k: u32,
        num_groups: u32,
        max_rounds: u32,
        is_causal: u32,
        align_groups: u32,
    }
}

/// Words of scratch memory of one search: two lists of groups (first block, size), the keys of their halves, and the scores of all
/// these keys.
pub(crate) const fn scratch_words(num_groups: u64, keys_per_block: u64) -> u64 {
    num_groups * (6 + 2 * keys_per_block)
}
