// One workgroup keeps the best chunks of one query block, for the next stage or as its list of blocks.
@group(0) @binding(SCORES_BINDING)        var<storage, read>       scores: array<f32>;        // [batch, sets * lists_per_set, num_q_blocks, max_chunks]
@group(0) @binding(CACHE_BINDING)         var<storage, read_write> cache: array<u32>;         // survivors of all stages
@group(0) @binding(BLOCK_INDICES_BINDING) var<storage, read_write> block_indices: array<u32>; // [batch, sets, num_q_blocks, max_blocks]
@group(0) @binding(BLOCK_COUNTS_BINDING)  var<storage, read_write> block_counts: array<u32>;  // [batch, sets, num_q_blocks]

var<private> block: QueryBlock;
// The lists of scores to read: the first one, and how many.
var<private> scores_at: u32;
var<private> num_scores: u32;
// Candidates are chunks by their scores, or the chunks that some head marked.
var<private> by_marks: bool;

var<workgroup> shared_count: u32;
var<workgroup> num_written: atomic<u32>;

fn mark_at(i: u32) -> u32 {
    return stage.marks_offset + block.list * stage.max_chunks + i;
}

fn candidate_key(i: u32) -> u32 {
    if by_marks {
        return cache[mark_at(i)];
    }
    // The best of the scores in these lists.
    var key = 0u;
    for (var list = 0u; list < num_scores; list++) {
        key = max(key, key_of_score(scores[scores_at + list * params.num_q_blocks * stage.max_chunks + i]));
    }
    return key;
}

fn keep_candidate(i: u32, place: u32) {
    if stage.is_union != 0u && !by_marks {
        cache[mark_at(i)] = 1u;
        return;
    }
    let begin = chunk_begin(i, block.list);
    if stage.is_last == 0u {
        cache[stage.survivors_offset + block.list * stage.max_survivors + place] = begin;
    } else if i32(begin) < block.p_min + i32(params.block_size_q) && begin < block.seq_len_kv {
        // Lists ascend, so invalid entries are at their ends.
        block_indices[params.indices_offset + block.list * params.max_blocks + place] = begin;
        atomicAdd(&num_written, 1u);
    }
}

// Lists of scores that an invocation reads at once.
const LISTS = 4u;

fn put_candidates(count: u32, index: u32) {
    if KEYS_ARE_PUT {
        // Several invocations share the lists of a candidate. All go round the loop equally often, since subgroup operations follow.
        let parts = select((num_scores + LISTS - 1u) / LISTS, 1u, by_marks);
        for (var begin = 0u; begin < count * parts; begin += WORKGROUP_SIZE) {
            let part = begin + index;
            if part < count * parts {
                let i = part % count;
                put_key(i, best_key(i, part / count * LISTS));
            }
        }
    }
}

// The best key of a candidate in some of the lists of scores, from the first of these on.
fn best_key(i: u32, first: u32) -> u32 {
    if by_marks {
        return candidate_key(i);
    }
    var key = 0u;
    for (var list = 0u; list < 4u; list++) { // unroll
        let read = min(first + list, num_scores - 1u);
        key = max(key, key_of_score(scores[scores_at + read * params.num_q_blocks * stage.max_chunks + i]));
    }
    return key;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn select_chunks(
    thread: Thread,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
    let index = group_of(thread) * LANES + lane_of(thread);
    let sets = params.num_sets / stage.lists_per_set;
    let list = stretch.first_place + workgroup.y * num_workgroups.x + workgroup.x;
    if list >= params.batch_size * sets * params.num_q_blocks {
        return;
    }
    block = query_block(list, sets);
    begin_top_k(index);
    if index == 0u {
        shared_count = select(min(num_chunks(block, list), stage.max_chunks), 0u, is_dense(block));
        atomicStore(&num_written, 0u);
    }
    // Uniform, also for a compiler that cannot see it.
    let count = workgroupUniformLoad(&shared_count);

    var kept: u32;
    let first_row = (block.batch * params.num_sets + block.set_index * stage.lists_per_set) * params.num_q_blocks;
    if count <= stage.keep {
        by_marks = true; // and none of them is needed
        kept = count;
        for (var i = index; i < count; i += WORKGROUP_SIZE) {
            keep_candidate(i, i);
        }
    } else if stage.is_union != 0u {
        num_scores = 1u;
        for (var i = index; i < count; i += WORKGROUP_SIZE) {
            cache[mark_at(i)] = 0u;
        }
        storageBarrier(); // orders the marks
        by_marks = false;
        for (var head = 0u; head < stage.lists_per_set; head++) {
            scores_at = (first_row + head * params.num_q_blocks + block.q_block) * stage.max_chunks;
            put_candidates(count, index);
            kept = keep_best(count, stage.keep, index);
            workgroupBarrier(); // orders what the top-k looks at: that of the next head
        }
        // Each invocation reads only marks that it made: every top-k gives it the same candidates.
        by_marks = true;
        put_candidates(count, index);
        kept = keep_all(count, index);
    } else {
        num_scores = stage.lists_per_set;
        scores_at = (first_row + block.q_block) * stage.max_chunks;
        put_candidates(count, index);
        kept = keep_best(count, stage.keep, index);
    }
    if stage.is_last == 0u {
        if index == 0u {
            cache[stage.survivor_counts_offset + block.list] = kept;
        }
        return;
    }
    workgroupBarrier(); // orders num_written
    let written = atomicLoad(&num_written);
    for (var i = written + index; i < params.max_blocks; i += WORKGROUP_SIZE) {
        block_indices[params.indices_offset + block.list * params.max_blocks + i] = PADDING;
    }
    if index == 0u {
        block_counts[params.counts_offset + block.list] = written;
    }
}
