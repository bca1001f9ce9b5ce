// Family `score`: the scores of all keys that represent a search's candidates. Here by products of EDGE x EDGE matrices: samples times
// keys, EDGE keys at a time for each group, which is a subgroup. Only the best score of a key leaves workgroup memory. Samples are
// unscaled queries, so that f16 holds them exactly; a positive scale would not change the order.

// MASKED stands for minus infinity, which WGSL does not guarantee to exist. No finite score reaches it.

// The best score of each of a group's keys, by each lane that scans it.
var<workgroup> best_of_lanes: array<f32, WORKGROUP_SIZE>;

// Samples of the heads of a KV head are rows: all of the first head, then all of the next.
fn put_samples(first_head: u32, num_rows: u32, first_row: u32, index: u32) {
    for (var e = index; e < EDGE * K_COLUMNS4; e += WORKGROUP_SIZE) {
        let row = min(first_row + e / K_COLUMNS4, num_rows - 1u);
        let head = block.batch * params.num_q_heads + first_head + row / params.num_samples;
        let sample = (head * params.num_q_blocks + block.q_block) * params.num_samples + row % params.num_samples;
        let column = e % K_COLUMNS4;
        let value = samples[sample * HEAD_DIM4 + min(column, HEAD_DIM4 - 1u)];
        put_a4(e / K_COLUMNS4 * A_STRIDE4 + column, vec4<f16>(select(vec4<f32>(), value, column < HEAD_DIM4)));
    }
}

fn put_keys(k_rows: KeyRows, first: u32, count: u32, index: u32) {
    for (var e = index; e < TILE_KEYS * K_COLUMNS4; e += WORKGROUP_SIZE) {
        let at = min(first + e / K_COLUMNS4, count - 1u);
        let key = min(probed_key(at), block.seq_len_kv - 1u);
        let column = e % K_COLUMNS4;
        let value = k[k_rows.begin + key_row(k_rows, key) + min(column, HEAD_DIM4 - 1u)];
        put_k4(e / K_COLUMNS4 * K_STRIDE4 + column, select(vec4<f16>(), value, column < HEAD_DIM4));
    }
}

fn score_candidates(place: QueryBlock, thread: Thread, index: u32) {
    let count = 2u * hip.num_groups * KEYS_PER_BLOCK;
    let heads = min(params.heads_per_set, params.group_size);
    let num_rows = params.num_samples * heads;
    let lane = lane_of(thread);
    let first_of_group = group_of(thread) * EDGE;
    for (var first = 0u; first < count; first += TILE_KEYS) {
        // This lane scans one key; where there are more lanes than keys, some of its samples only.
        let own = first + first_of_group + lane % EDGE;
        let at = min(own, count - 1u);
        let key = i32(probed_key(at));
        var best = MASKED;
        // The heads of a KV head score a key together.
        for (var each = 0u; each < params.heads_per_set; each += heads) {
            let head = place.set_index * params.heads_per_set + each;
            put_keys(rows_of_k(place.batch, head / params.group_size), first, count, index);
            for (var row = 0u; row < num_rows; row += EDGE) {
                put_samples(head, num_rows, row, index);
                workgroupBarrier(); // orders tile_a and tile_k: the other invocations' have been written
                var products = MatrixC();
                for (var d = 0u; d < K_TILES; d++) { // unroll in registers
                    let rows = coopLoadT<MatrixA>(&tile_a[d * EDGE / 4u * PER_VEC4], A_STRIDE4 * PER_VEC4);
                    let keys_at = first_of_group * K_STRIDE4 + d * EDGE / 4u;
                    products = coopMultiplyAdd(rows, coopLoad<MatrixB>(&tile_k[keys_at * PER_VEC4], K_STRIDE4 * PER_VEC4), products);
                }
                // Stored by columns: a key's scores lie side by side.
                coopStore(products, &sums[first_of_group * SUMS_STRIDE4 * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
                workgroupBarrier(); // orders sums, tile_a and tile_k: written by other lanes, and read for the last time
                for (var i4 = lane / EDGE; i4 < EDGE / 4u; i4 += PARTS_OF_KEY) {
                    let score4 = sums4((first_of_group + lane % EDGE) * SUMS_STRIDE4 + i4);
                    for (var i = 0u; i < 4u; i++) { // unroll
                        let sample = min(row + i4 * 4u + i, num_rows - 1u) % params.num_samples;
                        // A comparison with NaN is false: a NaN score is skipped.
                        best = select(best, score4[i], score4[i] > best && key <= last_scored_key(sample));
                    }
                }
            }
        }
        best_of_lanes[index] = best;
        workgroupBarrier(); // orders best_of_lanes
        if lane < EDGE && own < count {
            for (var part = 1u; part < PARTS_OF_KEY; part++) {
                best = max(best, best_of_lanes[index + part * EDGE]);
            }
            put_score(own, best);
        }
    }
}
