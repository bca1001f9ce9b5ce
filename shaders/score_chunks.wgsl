// One owner, a lane or a group, descends into two chunks of keys of one query block by halving, always into the half whose representative
// key scores higher, for one query head after the other, and stores the best score on the way (InfiniteHiP, section 3).
@group(0) @binding(SAMPLES_BINDING) var<storage, read>       samples: array<vec4<f32>>; // [batch, num_q_heads, num_q_blocks, num_samples, head_dim / 4]
@group(0) @binding(K_BINDING)       var<storage, read>       k: array<Elem4>;           // [batch, seq_len_kv, num_kv_heads, head_dim / 4]
@group(0) @binding(CACHE_BINDING)   var<storage, read>       cache: array<u32>;         // survivors of the stage before
@group(0) @binding(SCORES_BINDING)  var<storage, read_write> scores: array<f32>;        // [batch, num_sets, num_q_blocks, max_chunks]

// All samples may score every probe.
fn last_scored_key(sample: u32) -> i32 {
    return 0;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn score_chunks(
    thread: Thread,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
    let tiles = (stage.max_chunks + 2u * OWNERS - 1u) / (2u * OWNERS);
    let item = stretch.first_place + workgroup.y * num_workgroups.x + workgroup.x;
    let list = item / tiles;
    if list >= params.batch_size * params.num_sets * params.num_q_blocks {
        return;
    }
    let block = query_block(list, params.num_sets);
    // The list of survivors belongs to the set, where lists of scores belong to query heads.
    let survivors = survivor_list(block);
    let count = num_chunks(block, survivors);
    let first = item % tiles * 2u * OWNERS;
    // If all chunks are kept, their scores are not needed.
    if first >= count || count <= stage.keep || is_dense(block) {
        return;
    }
    let own = first + 2u * owner_of(thread) + vec2<u32>(0u, 1u);
    let at = min(own, vec2<u32>(count - 1u));
    let begin = vec2<u32>(chunk_begin(at.x, survivors), chunk_begin(at.y, survivors));
    var end = begin + stage.chunk_size;
    if stage.is_first != 0u {
        // There is a chunk only if T > W'.
        end = min(end, vec2<u32>(block.seq_len_kv - u32(params.candidate_window)));
    }
    let last_probe = vec2<u32>(u32(max(block.p_min, 0)));

    var score = vec2<f32>(MASKED);
    let first_head = block.set_index * params.heads_per_set;
    for (var head = first_head; head < first_head + params.heads_per_set; head++) {
        let k_rows = rows_of_k(block.batch, head / params.group_size);
        var left = begin;
        var right = end;
        var best = vec2<f32>(MASKED);
        for (var round = 0u; round < stage.rounds; round++) {
            let middle = (left + right) / 2u;
            var probe_left = left;
            var probe_right = middle;
            if params.representative == CENTER {
                probe_left = (left + middle) / 2u;
                probe_right = (middle + right) / 2u;
            }
            let keys = vec4<u32>(min(probe_left, last_probe), min(probe_right, last_probe));
            let rows = vec4<u32>(k_rows.begin) + key_row4(k_rows, keys);
            let samples_of = SamplePlace(block.batch, head, block.q_block);
            let probed = best_scores(rows, vec4<i32>(keys), samples_of, 1u, thread);
            // A tie goes to the right half.
            let goes_left = probed.xy > probed.zw;
            let winner = select(probed.zw, probed.xy, goes_left);
            right = select(right, middle, goes_left);
            left = select(middle, left, goes_left);
            best = select(winner, max(best, winner), vec2<bool>(params.representative == CENTER));
        }
        score = max(score, best);
    }
    let last_active = u32(max(block.p_min - params.candidate_window, 0));
    score = select(vec2<f32>(MASKED), score, begin <= vec2<u32>(last_active));
    let row = list * stage.max_chunks;
    if own.x < count && stores(0u, thread) {
        scores[row + own.x] = score.x;
    }
    if own.y < count && stores(1u, thread) {
        scores[row + own.y] = score.y;
    }
}
