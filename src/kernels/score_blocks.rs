//! Scores of blocks of keys by their summaries: `shaders/score_blocks.wgsl`.

use super::{Binding, Kernel, own_kernel};

const BINDINGS: &[Binding] =
    &[Binding::uniform("params", NUMBERS), Binding::read("q"), Binding::read("summaries"), Binding::write("scores")];

/// Scores of blocks of keys by their summaries.
pub static SCORE_BLOCKS: Kernel = own_kernel!("score_blocks", BINDINGS);

/// The numbers of one call. Offsets and strides of q and of the summaries count vec4 elements, others elements.
#[rustfmt::skip]
const NUMBERS: &[&str] = &[
    "batch_size", "seq_len_q", "seq_len_kv", "group_size", "num_sets", "heads_per_set", "num_q_blocks",
    "block_size_q", "num_blocks", "block_size", "needed_key", "q_offset", "q_batch", "q_seq",
    "q_head", "summaries_offset", "summaries_batch", "summaries_seq", "summaries_head", "scores_offset",
    "scores_batch", "scores_set", "scores_q_block",
];
