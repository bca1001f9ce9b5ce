// Family `score`: the scores of all keys that represent a search's candidates. Here each owner, a lane or a group, scores four keys at a
// time (best_scores).

fn score_candidates(place: QueryBlock, thread: Thread, index: u32) {
    let count = 2u * hip.num_groups * KEYS_PER_BLOCK;
    let first_head = place.set_index * params.heads_per_set;
    let first_kv_head = first_head / params.group_size;
    // Lanes past the end compute along, since subgroup operations need them.
    for (var begin = 0u; begin < count; begin += 4u * OWNERS) {
        let first = begin + 4u * owner_of(thread);
        let at = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
        var keys: vec4<u32>;
        for (var c = 0u; c < 4u; c++) { // unroll in registers
            keys[c] = probed_key(at[c]);
        }
        let rows = key_row4(rows_of_k(place.batch, first_kv_head), min(keys, vec4<u32>(place.seq_len_kv - 1u)));
        var best = vec4<f32>(MASKED);
        // The heads of a KV head score a key together.
        let heads = min(params.heads_per_set, params.group_size);
        for (var head = first_head; head < first_head + params.heads_per_set; head += heads) {
            let k_begin = rows_of_k(place.batch, head / params.group_size).begin;
            let samples_of = SamplePlace(place.batch, head, place.q_block);
            best = max(best, best_scores(rows + vec4<u32>(k_begin), vec4<i32>(keys), samples_of, heads, thread));
        }
        for (var c = 0u; c < 4u; c++) { // unroll in registers
            if first + c < count && stores(c, thread) {
                put_score(at[c], best[c]);
            }
        }
    }
}
