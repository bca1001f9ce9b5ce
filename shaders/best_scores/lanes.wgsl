// Family `best_scores`: the best score of each of four keys over the samples of some query heads of one KV head. Here each lane has four
// keys of its own, and lanes share the loads of samples: each lane loads one of every SHARE. For many samples.
//
// The kernel's own file says which keys a sample may score: last_scored_key(sample). A NaN score counts as absent. A score replaces
// another only if it compares as greater: max may return either of a number and a NaN.

// The owner of four keys: one of OWNERS in a workgroup.
fn owner_of(thread: Thread) -> u32 {
    return group_of(thread) * LANES + lane_of(thread);
}

// Whether a lane stores the result for the c-th key of its owner.
fn stores(c: u32, thread: Thread) -> bool {
    return true;
}

// k_at: where the keys begin in k. keys: their positions, used only if MASK_PAIRS. place: the first of the samples, of num_heads heads.
fn best_scores(k_at: vec4<u32>, keys: vec4<i32>, place: SamplePlace, num_heads: u32, thread: Thread) -> vec4<f32> {
    let own = lane_of(thread) % SHARE;
    let num_rows = params.num_samples * num_heads;
    var best = vec4<f32>(MASKED);
    for (var first = 0u; first < num_rows; first += ROWS) {
        var q_at: array<u32, SLOTS>;
        for (var slot = 0u; slot < SLOTS; slot++) { // unroll
            q_at[slot] = sample_at(place, min(first + slot * SHARE + own, num_rows - 1u)) * HEAD_DIM4;
        }
        var scores: array<vec4<f32>, ROWS>;
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            scores[r] = vec4<f32>();
        }
        for (var d4 = 0u; d4 < HEAD_DIM4; d4++) {
            let a = widen(k[k_at.x + d4]);
            let b = widen(k[k_at.y + d4]);
            let c = widen(k[k_at.z + d4]);
            let d = widen(k[k_at.w + d4]);
            let kx = vec4<f32>(a.x, b.x, c.x, d.x);
            let ky = vec4<f32>(a.y, b.y, c.y, d.y);
            let kz = vec4<f32>(a.z, b.z, c.z, d.z);
            let kw = vec4<f32>(a.w, b.w, c.w, d.w);
            for (var slot = 0u; slot < SLOTS; slot++) { // unroll
                let loaded = samples[q_at[slot] + d4];
                for (var t = 0u; t < SHARE; t++) { // unroll
                    let q4 = from_lane(loaded, t, thread);
                    scores[slot * SHARE + t] = fma(vec4<f32>(q4.x), kx, fma(vec4<f32>(q4.y), ky,
                        fma(vec4<f32>(q4.z), kz, fma(vec4<f32>(q4.w), kw, scores[slot * SHARE + t]))));
                }
            }
        }
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            if MASK_PAIRS {
                let scored = keys <= vec4<i32>(last_scored_key(min(first + r, num_rows - 1u) % params.num_samples));
                best = select(best, scores[r], (scores[r] > best) & scored);
            } else {
                best = select(best, scores[r], scores[r] > best);
            }
        }
    }
    return best;
}
