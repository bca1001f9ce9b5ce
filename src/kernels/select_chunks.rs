//! The best chunks of one stage of InfiniteHiP: `shaders/select_chunks.wgsl`. Its uniform is that of `sample_queries`.

use super::sample_queries::SelectParams;
use super::{Binding, Kernel, own_kernel};

const BINDINGS: &[Binding] = &[
    Binding::stretch("params", SelectParams::FIELDS),
    Binding::read("scores"),
    Binding::read("seq_lens_kv"),
    Binding::write("cache"),
    Binding::write("block_indices"),
    Binding::write("block_counts"),
];

/// The best chunks of one stage of InfiniteHiP.
pub static SELECT_CHUNKS: Kernel = own_kernel!("select_chunks", BINDINGS);
