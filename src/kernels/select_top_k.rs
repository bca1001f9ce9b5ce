//! The best entries of rows of scores: `shaders/select_top_k.wgsl`.

use super::{Binding, Kernel, own_kernel};

const BINDINGS: &[Binding] = &[
    Binding::uniform("params", NUMBERS),
    Binding::read("scores"),
    Binding::write("block_indices"),
    Binding::write("block_counts"),
];

/// The best entries of rows of scores.
pub static SELECT_TOP_K: Kernel = own_kernel!("select_top_k", BINDINGS);

/// The numbers of one call. Offsets and strides count elements.
#[rustfmt::skip]
const NUMBERS: &[&str] = &[
    "num_rows", "num_sets", "num_q_blocks", "num_entries", "k", "block_size", "forced_first", "forced_last",
    "scores_offset", "scores_batch", "scores_set", "scores_q_block", "indices_offset", "counts_offset",
    "marks_offset",
];
