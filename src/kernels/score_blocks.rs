//! Scores of blocks of keys by their summaries: `shaders/score_blocks.wgsl`.

use super::{Binding, Kernel, own_kernel, params};

const BINDINGS: &[Binding] = &[
    Binding::stretch("params", BlockScoreParams::FIELDS),
    Binding::read("q"),
    Binding::read("summaries"),
    Binding::read("seq_lens_kv"),
    Binding::write("scores"),
];

/// Scores of blocks of keys by their summaries.
pub static SCORE_BLOCKS: Kernel = own_kernel!("score_blocks", BINDINGS);

params! {
    /// The numbers of one call. Offsets and strides of q and of the summaries count vec4 elements, others elements.
    BlockScoreParams {
        batch_size: u32,
        seq_len_q: u32,
        seq_len_kv: u32,
        group_size: u32,
        num_sets: u32,
        heads_per_set: u32,
        num_q_blocks: u32,
        block_size_q: u32,
        num_blocks: u32,
        block_size: u32,
        needed_key: u32,
        seq_lens_offset: u32,
        q_offset: u32,
        q_batch: u32,
        q_seq: u32,
        q_head: u32,
        summaries_offset: u32,
        summaries_batch: u32,
        summaries_seq: u32,
        summaries_head: u32,
        scores_offset: u32,
        scores_batch: u32,
        scores_set: u32,
        scores_q_block: u32,
        first_place: u32,
    }
}
