// Family `best_scores`: the best score of each of four keys over the samples of some query heads of one KV head. Here the LANES lanes of
// a group share the rows of its four keys: a lane takes CHUNK neighbouring vec4 of a row, 16 bytes of memory, then the CHUNK vec4 that
// lie LANES * CHUNK further. So neighbouring lanes read neighbouring memory, and the loads of all four keys are in flight at once. For
// few samples, which are limited by the latency of keys.
//
// The kernel's own file says which keys a sample may score: last_scored_key(sample). A NaN score counts as absent. A score replaces
// another only if it compares as greater: max may return either of a number and a NaN.

// The owner of four keys: one of OWNERS in a workgroup.
fn owner_of(thread: Thread) -> u32 {
    return group_of(thread);
}

// Whether a lane stores the result for the c-th key of its owner. All lanes of a group have the result.
fn stores(c: u32, thread: Thread) -> bool {
    return lane_of(thread) == c;
}

// The c-th vec4 that a lane takes of a row.
fn column_of(lane: u32, c: u32) -> u32 {
    return (c / CHUNK * LANES + lane) * CHUNK + c % CHUNK;
}

// k_at: where the keys begin in k. keys: their positions, used only if MASK_PAIRS. place: the first of the samples, of num_heads heads.
fn best_scores(k_at: vec4<u32>, keys: vec4<i32>, place: SamplePlace, num_heads: u32, thread: Thread) -> vec4<f32> {
    let lane = lane_of(thread);
    let num_rows = params.num_samples * num_heads;
    // Issues all loads before anything waits for one.
    var k4: array<array<Elem4, COLS>, 4>;
    for (var i = 0u; i < 4u; i++) { // unroll in registers
        for (var c = 0u; c < COLS; c++) { // unroll in registers
            k4[i][c] = k[k_at[i] + min(column_of(lane, c), HEAD_DIM4 - 1u)];
        }
    }
    var best = vec4<f32>(MASKED);
    for (var row = 0u; row < num_rows; row++) {
        let q_at = sample_at(place, row) * HEAD_DIM4;
        var scores = vec4<f32>();
        for (var c = 0u; c < COLS; c++) { // unroll in registers
            // Columns past the row's end count as 0, whatever was loaded.
            let counts = COLS * LANES == HEAD_DIM4 || column_of(lane, c) < HEAD_DIM4;
            let q4 = select(vec4<f32>(), samples[q_at + min(column_of(lane, c), HEAD_DIM4 - 1u)], counts);
            for (var i = 0u; i < 4u; i++) { // unroll in registers
                let key4 = select(vec4<f32>(), widen(k4[i][c]), counts);
                scores[i] = fma(q4.x, key4.x, fma(q4.y, key4.y, fma(q4.z, key4.z, fma(q4.w, key4.w, scores[i]))));
            }
        }
        for (var i = 0u; i < 4u; i++) { // unroll in registers
            scores[i] = give_sum(scores[i], i, thread);
        }
        join_sum(thread);
        for (var i = 0u; i < 4u; i++) { // unroll in registers
            scores[i] = take(scores[i], i, thread);
        }
        if MASK_PAIRS {
            let scored = keys <= vec4<i32>(last_scored_key(row % params.num_samples));
            best = select(best, scores, (scores > best) & scored);
        } else {
            best = select(best, scores, scores > best);
        }
    }
    return best;
}
