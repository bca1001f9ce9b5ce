// The numbers of one dispatch of a selection that all methods have. Offsets and strides of q and k count vec4 elements, others elements.
struct SelectParams {
    batch_size: u32,
    seq_len_q: u32,
    seq_len_kv: u32,
    num_q_heads: u32,
    group_size: u32,
    num_sets: u32,
    heads_per_set: u32,
    num_q_blocks: u32,
    block_size_q: u32,
    num_samples: u32,
    stride_q: u32,
    scale: f32,
    q_offset: u32,
    q_batch: u32,
    q_seq: u32,
    q_head: u32,
    k_offset: u32,
    k_batch: u32,
    k_seq: u32,
    k_head: u32,
    sink_size: i32,
    candidate_window: i32,
    dense_below: i32,
    representative: u32,
    max_blocks: u32,
    indices_offset: u32,
    counts_offset: u32,
}
@group(0) @binding(PARAMS_BINDING) var<uniform> params: SelectParams;

// `representative` is CENTER, FIRST, or another number for the last key.

// Queries of a block; the last block may have fewer than the others.
fn queries_of_block(q_block: u32) -> u32 {
    return min(params.block_size_q, params.seq_len_q - q_block * params.block_size_q);
}
