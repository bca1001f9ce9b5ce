//! The best entries of rows of scores: `shaders/select_top_k.wgsl`.

use super::{Binding, Kernel, own_kernel, params};

const BINDINGS: &[Binding] = &[
    Binding::stretch("params", TopKParams::FIELDS),
    Binding::read("scores"),
    Binding::write("block_indices"),
    Binding::write("block_counts"),
];

/// The best entries of rows of scores.
pub static SELECT_TOP_K: Kernel = own_kernel!("select_top_k", BINDINGS);

params! {
    /// The numbers of one call. Offsets and strides count elements.
    TopKParams {
        num_rows: u32,
        num_sets: u32,
        num_q_blocks: u32,
        num_entries: u32,
        k: u32,
        block_size: u32,
        forced_first: u32,
        forced_last: u32,
        scores_offset: u32,
        scores_batch: u32,
        scores_set: u32,
        scores_q_block: u32,
        indices_offset: u32,
        counts_offset: u32,
        marks_offset: u32,
        first_place: u32,
    }
}
