//! Summaries of blocks of keys: `shaders/pool_blocks.wgsl`.

use super::{Binding, Kernel, own_kernel};

const BINDINGS: &[Binding] = &[Binding::uniform("params", NUMBERS), Binding::read("k"), Binding::write("summaries")];

/// Summaries of blocks of keys.
pub static POOL_BLOCKS: Kernel = own_kernel!("pool_blocks", BINDINGS);

/// The numbers of one call. Offsets and strides of k and of the summaries count vec4 elements.
#[rustfmt::skip]
const NUMBERS: &[&str] = &[
    "batch_size", "seq_len_kv", "num_heads", "block_size", "num_blocks", "k_offset", "k_batch",
    "k_seq", "k_head", "summaries_offset", "summaries_batch", "summaries_seq", "summaries_head",
];
