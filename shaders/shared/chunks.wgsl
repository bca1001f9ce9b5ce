// The chunks of a stage: in the first stage all of a sequence, later the children of the survivors.

// Index of the survivors' list, where lists of scores belong to query heads and lists of survivors to sets.
fn survivor_list(block: QueryBlock) -> u32 {
    let sets = params.num_sets / params.lists_per_set;
    return (block.batch * sets + block.set_index / params.lists_per_set) * params.num_q_blocks + block.q_block;
}

fn num_chunks(block: QueryBlock, survivors: u32) -> u32 {
    if has_flag(FIRST_STAGE) {
        // In steps, so that no difference goes below 0.
        let past_sinks = block.seq_len_kv - min(block.seq_len_kv, u32(params.sink_size));
        let keys = past_sinks - min(past_sinks, params.first_window);
        return (keys + params.chunk_size - 1u) / params.chunk_size;
    }
    return min(cache[params.parent_counts_offset + survivors], params.max_parents) * params.children;
}

fn chunk_begin(chunk: u32, survivors: u32) -> u32 {
    if has_flag(FIRST_STAGE) {
        return u32(params.sink_size) + chunk * params.chunk_size;
    }
    let parent = cache[params.parents_offset + survivors * params.max_parents + chunk / params.children];
    return parent + chunk % params.children * params.chunk_size;
}
