// The chunks of a stage: in the first stage all of a sequence, later the children of the survivors.

// The numbers of one stage of InfiniteHiP. Offsets count elements of the cache. `is_first`, `is_last` and `is_union` are 0 or 1, at run
// time, so that kernels are compiled once for all stages.
struct StageParams {
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
@group(0) @binding(STAGE_BINDING) var<uniform> stage: StageParams;

// Index of the survivors' list, where lists of scores belong to query heads and lists of survivors to sets.
fn survivor_list(block: QueryBlock) -> u32 {
    let sets = params.num_sets / stage.lists_per_set;
    return (block.batch * sets + block.set_index / stage.lists_per_set) * params.num_q_blocks + block.q_block;
}

fn num_chunks(block: QueryBlock, survivors: u32) -> u32 {
    if stage.is_first != 0u {
        // In steps, so that no difference goes below 0.
        let past_sinks = block.seq_len_kv - min(block.seq_len_kv, u32(params.sink_size));
        let keys = past_sinks - min(past_sinks, stage.first_window);
        return (keys + stage.chunk_size - 1u) / stage.chunk_size;
    }
    return min(cache[stage.parent_counts_offset + survivors], stage.max_parents) * stage.children;
}

fn chunk_begin(chunk: u32, survivors: u32) -> u32 {
    if stage.is_first != 0u {
        return u32(params.sink_size) + chunk * stage.chunk_size;
    }
    let parent = cache[stage.parents_offset + survivors * stage.max_parents + chunk / stage.children];
    return parent + chunk % stage.children * stage.chunk_size;
}
