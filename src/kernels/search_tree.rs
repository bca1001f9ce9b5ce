//! HiP's beam search, all its rounds in one dispatch: `shaders/search_tree.wgsl`. Its uniform is that of `sample_queries`.

use super::{Binding, Kernel, own_kernel};
use crate::PADDING;
use crate::shader::Constant;

const BINDINGS: &[Binding] = &[
    Binding::read("samples"),
    Binding::read("k"),
    Binding::write("scratch"),
    Binding::write("block_indices"),
    Binding::write("block_counts"),
];

/// HiP's beam search through the tree of keys.
pub static SEARCH_TREE: Kernel = own_kernel!("search_tree", BINDINGS).declaring(&[Constant::u32("PADDING", PADDING)]);

/// Words of scratch memory of one search: two lists of groups (first block, size), the keys of their halves, and the scores of all
/// these keys.
pub(crate) const fn scratch_words(num_groups: u64, keys_per_block: u64) -> u64 {
    num_groups * (6 + 2 * keys_per_block)
}
