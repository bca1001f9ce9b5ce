//! Descents into the chunks of one stage of InfiniteHiP: `shaders/score_chunks.wgsl`. Its uniforms are that of
//! `sample_queries` and that of a stage, which `select_chunks` reads too.

use super::{Binding, Kernel, own_kernel, params};

const BINDINGS: &[Binding] =
    &[Binding::read("samples"), Binding::read("k"), Binding::read("cache"), Binding::write("scores")];

/// Scores of the chunks of one stage of InfiniteHiP.
pub static SCORE_CHUNKS: Kernel = own_kernel!("score_chunks", BINDINGS);

params! {
    /// The numbers of a stage that InfiniteHiP alone has: the uniform of the module `chunks`. Offsets count elements of the cache.
    StageParams {
        chunk_size: u32,
        first_window: u32,
        children: u32,
        max_parents: u32,
        parents_offset: u32,
        parent_counts_offset: u32,
        max_chunks: u32,
        keep: u32,
        survivors_offset: u32,
        survivor_counts_offset: u32,
        marks_offset: u32,
        rounds: u32,
        lists_per_set: u32,
        max_survivors: u32,
        is_first: u32,
        is_last: u32,
        is_union: u32,
    }
}
