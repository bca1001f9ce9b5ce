// The query block and heads that a workgroup selects for, and the block's positions.
struct QueryBlock {
    batch: u32,
    set_index: u32,
    q_block: u32,
    // Index of the list: [batch, num_sets, num_q_blocks].
    list: u32,
    seq_len_kv: u32,
    // Positions of the block's first and last query.
    p_min: i32,
    p_max: i32,
}

fn query_block(list: u32, num_sets: u32) -> QueryBlock {
    let q_block = list % params.num_q_blocks;
    let row = list / params.num_q_blocks;
    let batch = row / num_sets;
    let seq_len_kv = seq_len_kv_of(batch);
    let first = q_block * params.block_size_q;
    let p_min = i32(first) + i32(seq_len_kv) - i32(params.seq_len_q);
    let p_max = p_min + i32(queries_of_block(q_block)) - 1;
    return QueryBlock(batch, row % num_sets, q_block, list, seq_len_kv, p_min, p_max);
}

// Attention reads no list of such a block.
fn is_dense(block: QueryBlock) -> bool {
    return params.dense_below > 0 && block.p_max < params.dense_below;
}
