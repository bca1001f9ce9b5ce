//! Descents into the chunks of one stage of InfiniteHiP: `shaders/score_chunks.wgsl`. Its uniform is that of
//! `sample_queries`.

use super::{Binding, Kernel, own_kernel};

const BINDINGS: &[Binding] =
    &[Binding::read("samples"), Binding::read("k"), Binding::read("cache"), Binding::write("scores")];

/// Scores of the chunks of one stage of InfiniteHiP.
pub static SCORE_CHUNKS: Kernel = own_kernel!("score_chunks", BINDINGS);
