//! Descents into the chunks of one stage of InfiniteHiP: `shaders/score_chunks.wgsl`. Its uniform is that of
//! `sample_queries`.

use super::Binding;

pub(crate) const BINDINGS: [Binding; 6] = [
    Binding::uniform("params"),
    Binding::read("samples"),
    Binding::read("k"),
    Binding::read("seq_lens_kv"),
    Binding::read("cache"),
    Binding::write("scores"),
];
