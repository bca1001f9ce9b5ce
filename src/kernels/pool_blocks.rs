//! Summaries of blocks of keys: `shaders/pool_blocks.wgsl`.

use super::{Binding, Kernel, own_kernel, params};

const BINDINGS: &[Binding] = &[
    Binding::stretch("params", PoolParams::FIELDS),
    Binding::read("k"),
    Binding::read("seq_lens_kv"),
    Binding::write("summaries"),
];

/// Summaries of blocks of keys.
pub static POOL_BLOCKS: Kernel = own_kernel!("pool_blocks", BINDINGS);

params! {
    /// The numbers of one call. Offsets and strides of k and of the summaries count vec4 elements.
    PoolParams {
        batch_size: u32,
        seq_len_kv: u32,
        num_heads: u32,
        block_size: u32,
        num_blocks: u32,
        seq_lens_offset: u32,
        k_offset: u32,
        k_batch: u32,
        k_seq: u32,
        k_head: u32,
        summaries_offset: u32,
        summaries_batch: u32,
        summaries_seq: u32,
        summaries_head: u32,
        first_place: u32,
    }
}
