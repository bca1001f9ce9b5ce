//! The best chunks of one stage of InfiniteHiP: `shaders/select_chunks.wgsl`. Its uniform is that of `sample_queries`.

use super::Binding;

pub(crate) const BINDINGS: [Binding; 6] = [
    Binding::uniform("params"),
    Binding::read("scores"),
    Binding::read("seq_lens_kv"),
    Binding::write("cache"),
    Binding::write("block_indices"),
    Binding::write("block_counts"),
];
