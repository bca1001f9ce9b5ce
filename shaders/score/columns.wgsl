// Family `score`: the scores of all keys that represent a search's candidates. Here the LANES lanes of a group share the rows of four keys at
// a time: a lane takes every LANES-th vec4 of a row. So neighbouring lanes read neighbouring memory, and the loads of all four keys are in
// flight at once. For few samples, which are limited by the latency of keys. A lane ends with the sum of one of the four keys, so that the
// sums take few shuffles.
//
// A NaN score counts as absent. A score replaces another only if it compares as greater: max may return either of a number and a NaN.

// The c-th vec4 that a lane takes of a row.
fn column_of(lane: u32, c: u32) -> u32 {
    return c * LANES + lane;
}

// The key of four whose sum over the lanes a lane has in the end.
fn summed_key(lane: u32) -> u32 {
    return lane % 2u * 2u + lane / 2u % 2u;
}

// In each of the first two steps lanes give away the sums of half the keys.
fn sum_of_key(scores: vec4<f32>, lane: u32) -> f32 {
    let is_odd = lane % 2u == 1u;
    let pair = select(scores.xy, scores.zw, is_odd) + subgroupShuffleXor(select(scores.zw, scores.xy, is_odd), 1u);
    let is_upper = lane / 2u % 2u == 1u;
    var sum = select(pair.x, pair.y, is_upper) + subgroupShuffleXor(select(pair.y, pair.x, is_upper), 2u);
    for (var step = 4u; step < LANES; step *= 2u) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}

fn score_candidates(place: QueryBlock, thread: Thread, index: u32) {
    let count = 2u * hip.num_groups * KEYS_PER_BLOCK;
    let lane = lane_of(thread);
    // The heads of a KV head score a key together.
    let heads = min(params.heads_per_set, params.group_size);
    let first_head = place.set_index * params.heads_per_set;
    let first_kv_head = first_head / params.group_size;
    let kv_heads = params.heads_per_set / heads;
    // All KV heads have the same rows.
    let k_rows = rows_of_k(place.batch, first_kv_head);
    // Lanes past the end compute along, since subgroup operations need them.
    for (var begin = 0u; begin < count; begin += 4u * GROUPS) {
        let first = begin + 4u * group_of(thread);
        var rows: array<u32, 4>;
        for (var i = 0u; i < 4u; i++) { // unroll in registers
            rows[i] = key_row(k_rows, min(probed_key(min(first + i, count - 1u)), place.seq_len_kv - 1u));
        }
        // The key of this lane's sums.
        let own = first + summed_key(lane);
        let own_key = i32(probed_key(min(own, count - 1u)));
        var best = MASKED;
        for (var kv_head = 0u; kv_head < kv_heads; kv_head++) {
            let k_begin = rows_of_k(place.batch, first_kv_head + kv_head).begin;
            // Issues all loads before anything waits for one.
            var k4: array<Elem4, 4u * COLS>;
            for (var i = 0u; i < 4u; i++) { // unroll in registers
                for (var c = 0u; c < COLS; c++) { // unroll in registers
                    k4[i * COLS + c] = k[k_begin + rows[i] + min(column_of(lane, c), HEAD_DIM4 - 1u)];
                }
            }
            for (var head = 0u; head < heads; head++) {
                let row = place.batch * params.num_q_heads + first_head + kv_head * heads + head;
                let samples_begin = (row * params.num_q_blocks + place.q_block) * params.num_samples;
                for (var sample = 0u; sample < params.num_samples; sample++) {
                    var scores = vec4<f32>();
                    for (var c = 0u; c < COLS; c++) { // unroll in registers
                        // Columns past the row's end count as 0, whatever was loaded.
                        let counts = COLS * LANES == HEAD_DIM4 || column_of(lane, c) < HEAD_DIM4;
                        let q_at = (samples_begin + sample) * HEAD_DIM4 + min(column_of(lane, c), HEAD_DIM4 - 1u);
                        let q4 = select(vec4<f32>(), samples[q_at], counts);
                        for (var i = 0u; i < 4u; i++) { // unroll in registers
                            let key4 = select(vec4<f32>(), widen(k4[i * COLS + c]), counts);
                            scores[i] = fma(q4.x, key4.x, fma(q4.y, key4.y, fma(q4.z, key4.z, fma(q4.w, key4.w, scores[i]))));
                        }
                    }
                    let sum = sum_of_key(scores, lane);
                    best = select(best, sum, (sum > best) & (own_key <= last_scored_key(sample)));
                }
            }
        }
        if lane < 4u && own < count {
            put_score(own, best);
        }
    }
}
