// Family `rows`: one group of LANES invocations, a subgroup, attends ROWS query rows to a range of keys with the device's
// products of EDGE x EDGE matrices. A tile of keys and values lies in workgroup memory for all groups; while it is
// attended to, the next one is on its way from storage into registers.
//
// A matrix is opaque: single numbers are seen only in workgroup memory, where scores turn into weights. What is
// accumulated stays in matrices as long as it can: a row's weights are taken relative to a maximum that may be stale by
// SLACK, and only a score that passes it by more makes the row's sums move (as FlashAttention-4 does).
//
// No subgroup operations: a driver is known that crashes on a module with both. Invocations are numbered through the
// subgroups, which are full.

// Weights are exp2(score - reference + SHIFT), at most 2^(SLACK + SHIFT) and so within f16; the shift keeps the small ones
// from underflowing.
const SLACK = 8.0;
const SHIFT = 7.0;

// What each row's sums are multiplied by in a tile, and in the end parts of the rows' sums.
var<workgroup> row_factors: array<f32, GROUPS * ROWS * PARTS>;
// The last tile, counted from 1, in which some row's sums move (MOVING), and in which some value is not finite (SPOILED). Drivers
// place an array at the alignment of its elements, and matrices are loaded from multiples of 16 bytes only: so every array of
// workgroup memory takes a multiple of 16, whatever order they come in.
var<workgroup> last_tiles: array<atomic<u32>, 4>;
const MOVING = 0u;
const SPOILED = 1u;

// Each group has rows of its own.
fn first_row_of(rows: RowTile, thread: Thread) -> u32 {
    return rows.begin + group_of(thread) * ROWS;
}

// By their bits: a compiler may take for granted that numbers are finite.
fn is_spoiled(value: vec4<f16>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(vec4<f32>(value)) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}

// Where the i-th vec4 that an invocation loads of a tile goes: key of the tile, column.
fn loaded_at(i: u32, columns: u32, thread: Thread) -> vec2<u32> {
    let at = thread.index + i * WORKGROUP_SIZE;
    return vec2<u32>(at / columns, at % columns);
}

// The e-th vec4 of a column of matrices, in sums: rows of EDGE / 4.
fn sums_at(first_sums: u32, e: u32) -> u32 {
    return first_sums + e / (EDGE / 4u) * SUMS_STRIDE4 + e % (EDGE / 4u);
}

// Four scores of a row, from key `at` of the walk on. Those of keys that the row does not see are MASKED.
fn seen_scores4(scores_at: u32, row: u32, walk: Walk, at: u32, whole: bool) -> vec4<f32> {
    var score4 = sums4(scores_at) * params.scale_log2;
    if !whole {
        for (var c = 0u; c < 4u; c++) { // unroll
            let rows = walk_rows(walk, at + c);
            score4[c] = select(MASKED, score4[c], row >= rows.begin && row < rows.end);
        }
    }
    return score4;
}

// Every group of a workgroup must be given the same `walk`, because of the barriers within.
fn attend_rows(tile: Tile, walk: Walk) {
    let part = part_of(walk);
    if part.is_over {
        return;
    }
    let thread = tile.thread;
    let lane = lane_of(thread);
    let first = group_of(thread) * ROWS;
    let k_begin = first_k(tile);
    let v_begin = first_v(tile);
    let first_sums = first * SUMS_STRIDE4;
    let first_a = first * A_STRIDE4;
    // PARTS lanes share a row, or a lane has ROWS_EACH rows.
    let own_row = lane % ROWS;
    let own_part = lane / ROWS * PART4;

    // Queries come in through the place of the weights, tile_a, as many columns at a time as that holds.
    var queries: array<MatrixA, ROW_TILES * Q_TILES>;
    for (var chunk = 0u; chunk < Q_TILES / KEY_TILES; chunk++) { // unroll in registers
        for (var e = lane; e < ROWS * TILE_KV / 4u; e += LANES) {
            let row = e / (TILE_KV / 4u);
            let column = chunk * TILE_KV / 4u + e % (TILE_KV / 4u);
            let q4 = q[q_index(tile, place_of(tile.first_row + row)) + min(column, HEAD_DIM4 - 1u)];
            let at = first_a + row * A_STRIDE4 + e % (TILE_KV / 4u);
            put_a4(at, select(vec4<f16>(), q4, column < HEAD_DIM4));
        }
        workgroupBarrier(); // orders tile_a: the other lanes' have been written
        for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
            for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                let at = first_a + r * EDGE * A_STRIDE4 + n * EDGE / 4u;
                queries[r * Q_TILES + chunk * KEY_TILES + n] =
                    coopLoadT<MatrixA>(&tile_a[at * PER_VEC4], A_STRIDE4 * PER_VEC4);
            }
        }
        workgroupBarrier(); // orders tile_a: all have been read
    }

    var acc: array<MatrixC, ROW_TILES * V_TILES>;
    for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
        for (var c = 0u; c < V_TILES; c++) { // unroll in registers
            acc[r * V_TILES + c] = MatrixC();
        }
    }
    var row_reference: array<f32, ROWS_EACH>;
    var row_sum: array<f32, ROWS_EACH>;
    for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
        row_reference[i] = MASKED;
        row_sum[i] = 0.0;
    }
    // A bit for each of the lane's rows: one of its scores was NaN.
    var spoiled_rows = 0u;
    if part.resumes {
        for (var c = 0u; c < CARRIED_COLUMNS; c++) { // unroll
            for (var i = 0u; i < CARRIED_EACH; i++) { // unroll in registers
                let e = lane + i * LANES;
                if e < ROWS * EDGE / 4u {
                    put_sums4(sums_at(first_sums, e), carried4(c * CARRIED_EACH + i, tile));
                }
            }
            workgroupBarrier(); // orders sums: they are what the matrices are to be
            for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                let at = first_sums + r * EDGE * SUMS_STRIDE4;
                acc[r * V_TILES + c] = coopLoadT<MatrixC>(&sums[at * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
            }
            workgroupBarrier(); // orders sums: the matrices have been read
        }
        resume_folded(CARRIED_SUMS + ROWS_EACH, tile);
        for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
            let numbers = carried4(CARRIED_SUMS + i, tile);
            row_reference[i] = numbers.x;
            row_sum[i] = numbers.y;
            spoiled_rows |= select(0u, 1u << i, numbers.z != 0.0);
        }
    }
    if thread.index == 0u {
        atomicStore(&last_tiles[MOVING], 0u);
        atomicStore(&last_tiles[SPOILED], 0u);
    }

    var k_next: array<vec4<f16>, K_EACH>;
    var v_next: array<vec4<f16>, V_EACH>;
    if part.begin < part.end {
        for (var i = 0u; i < K_EACH; i++) { // unroll in registers
            let at = loaded_at(i, K_COLUMNS4, thread);
            k_next[i] = k[k_begin + walk_key(walk, part.begin + at.x) * params.k_seq + min(at.y, HEAD_DIM4 - 1u)];
        }
    }
    var number = (part.begin - walk.begin) / TILE_KV;
    for (var tile_begin = part.begin; tile_begin < part.end; tile_begin += TILE_KV) {
        number++;
        let whole = walk_is_whole(walk, tile_begin);
        for (var i = 0u; i < K_EACH; i++) { // unroll in registers
            let at = loaded_at(i, K_COLUMNS4, thread);
            if at.x < TILE_KV {
                put_k4(at.x * K_STRIDE4 + at.y, select(vec4<f16>(), k_next[i], at.y < HEAD_DIM4));
            }
        }
        for (var i = 0u; i < V_EACH; i++) { // unroll in registers
            let at = loaded_at(i, V_COLUMNS4, thread);
            v_next[i] = v[v_begin + walk_key(walk, tile_begin + at.x) * params.v_seq + min(at.y, HEAD_DIM_V4 - 1u)];
        }
        workgroupBarrier(); // orders tile_k: the other invocations' has been written

        for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
            var products: array<MatrixC, ROW_TILES>;
            for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                products[r] = MatrixC();
            }
            for (var d = 0u; d < K_TILES; d++) { // unroll in registers
                let at = n * EDGE * K_STRIDE4 + d * EDGE / 4u;
                let keys = coopLoad<MatrixB>(&tile_k[at * PER_VEC4], K_STRIDE4 * PER_VEC4);
                for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                    products[r] = coopMultiplyAdd(queries[r * Q_TILES + d], keys, products[r]);
                }
            }
            for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                let at = first_sums + r * EDGE * SUMS_STRIDE4 + n * EDGE / 4u;
                coopStoreT(products[r], &sums[at * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
            }
        }
        // A masked key's value may be NaN or infinity, and 0 * NaN is NaN: the product gets 0 for it, and the rows that see
        // the key get the value itself below.
        for (var i = 0u; i < V_EACH; i++) { // unroll in registers
            let at = loaded_at(i, V_COLUMNS4, thread);
            if at.x < TILE_KV {
                var value = select(vec4<f16>(), v_next[i], at.y < HEAD_DIM_V4);
                if !whole {
                    let spoiled = is_spoiled(value);
                    if any(spoiled) {
                        atomicMax(&last_tiles[SPOILED], number);
                    }
                    value = select(value, vec4<f16>(), spoiled);
                }
                put_v4(at.x * V_STRIDE4 + at.y, value);
            }
        }
        workgroupBarrier(); // orders sums, tile_v and tile_k: written by other lanes, and read for the last time

        for (var i = 0u; i < K_EACH; i++) { // unroll in registers
            let at = loaded_at(i, K_COLUMNS4, thread);
            let key = walk_key(walk, tile_begin + TILE_KV + at.x);
            k_next[i] = k[k_begin + key * params.k_seq + min(at.y, HEAD_DIM4 - 1u)];
        }
        for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
            let r = own_row + i * LANES;
            let row = tile.first_row + r;
            let scores_at = first_sums + r * SUMS_STRIDE4;
            var score4: array<vec4<f32>, PART4>;
            var max4 = vec4<f32>(MASKED);
            for (var j = 0u; j < PART4; j++) { // unroll in registers
                let key4 = own_part + j;
                score4[j] = seen_scores4(scores_at + key4, row, walk, tile_begin + key4 * 4u, whole);
                max4 = max(max4, score4[j]);
            }
            // The other lanes of the row find the same maximum.
            for (var j = PART4; j < TILE_KV / 4u; j++) {
                let key4 = (own_part + j) % (TILE_KV / 4u);
                max4 = max(max4, seen_scores4(scores_at + key4, row, walk, tile_begin + key4 * 4u, whole));
            }
            let tile_max = max(max(max4.x, max4.y), max(max4.z, max4.w));
            let moves = tile_max > row_reference[i] + SLACK;
            let reference = select(row_reference[i], tile_max, moves);
            let factor = exp2(row_reference[i] - reference);
            // Where nothing has been added yet nothing needs to move.
            if moves && row_reference[i] != MASKED {
                atomicMax(&last_tiles[MOVING], number);
            }
            if own_part == 0u {
                row_factors[first + r] = factor;
            }
            row_sum[i] *= factor;
            row_reference[i] = reference;
            for (var j = 0u; j < PART4; j++) { // unroll in registers
                spoiled_rows |= select(0u, 1u << i, any_nan(score4[j]));
                // Nothing for what is masked, and for -infinity.
                let weight4 = select(vec4<f32>(), exp2(score4[j] - reference + SHIFT), score4[j] > vec4<f32>(MASKED));
                // As they are: compilers drop a rounding to f16 and back, and the one below falls either way.
                row_sum[i] += weight4.x + weight4.y + weight4.z + weight4.w;
                put_a4(first_a + r * A_STRIDE4 + own_part + j, vec4<f16>(weight4));
            }
        }
        workgroupBarrier(); // orders tile_a, row_factors and last_tiles

        let spoiled = atomicLoad(&last_tiles[SPOILED]) == number;
        if spoiled || atomicLoad(&last_tiles[MOVING]) == number {
            for (var c = 0u; c < V_TILES; c++) { // unroll in registers
                for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                    let at = first_sums + r * EDGE * SUMS_STRIDE4;
                    coopStoreT(acc[r * V_TILES + c], &sums[at * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
                }
                workgroupBarrier(); // orders sums: the matrices have been written
                for (var e = lane; e < ROWS * EDGE / 4u; e += LANES) {
                    let r = e / (EDGE / 4u);
                    let at = sums_at(first_sums, e);
                    var sum = sums4(at) * row_factors[first + r];
                    let column = c * EDGE / 4u + e % (EDGE / 4u);
                    if spoiled && column < HEAD_DIM_V4 {
                        for (var key = 0u; key < TILE_KV; key++) {
                            let weight = max(f32(a4(first_a + r * A_STRIDE4 + key / 4u)[key % 4u]), LEAST_WEIGHT);
                            let value = v[v_begin + walk_key(walk, tile_begin + key) * params.v_seq + column];
                            let added = select(vec4<f32>(), weight * vec4<f32>(value), is_spoiled(value));
                            let rows = walk_rows(walk, tile_begin + key);
                            let sees = tile.first_row + r >= rows.begin && tile.first_row + r < rows.end;
                            sum = select(sum, sum + added, sees);
                        }
                    }
                    put_sums4(at, sum);
                    scale_folded(c * CARRIED_EACH + (e - lane) / LANES, row_factors[first + r]);
                }
                workgroupBarrier(); // orders sums: they are what the matrices are to be
                for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                    let at = first_sums + r * EDGE * SUMS_STRIDE4;
                    acc[r * V_TILES + c] = coopLoadT<MatrixC>(&sums[at * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
                }
                workgroupBarrier(); // orders sums: the matrices have been read
            }
        }

        for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
            var own: array<MatrixA, ROW_TILES>;
            for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                let at = first_a + r * EDGE * A_STRIDE4 + n * EDGE / 4u;
                own[r] = coopLoadT<MatrixA>(&tile_a[at * PER_VEC4], A_STRIDE4 * PER_VEC4);
            }
            for (var c = 0u; c < V_TILES; c++) { // unroll in registers
                let at = n * EDGE * V_STRIDE4 + c * EDGE / 4u;
                let values = coopLoadT<MatrixB>(&tile_v[at * PER_VEC4], V_STRIDE4 * PER_VEC4);
                for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                    acc[r * V_TILES + c] = coopMultiplyAdd(own[r], values, acc[r * V_TILES + c]);
                }
            }
        }
        // tile_v is written again only after the next tile's first barrier.

        if is_folded_after(number) {
            for (var c = 0u; c < V_TILES; c++) { // unroll in registers
                for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                    let at = first_sums + r * EDGE * SUMS_STRIDE4;
                    coopStoreT(acc[r * V_TILES + c], &sums[at * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
                    acc[r * V_TILES + c] = MatrixC();
                }
                workgroupBarrier(); // orders sums: the matrices have been written
                for (var e = lane; e < ROWS * EDGE / 4u; e += LANES) {
                    fold4(c * CARRIED_EACH + (e - lane) / LANES, sums4(sums_at(first_sums, e)));
                }
                workgroupBarrier(); // orders sums: they have been read
            }
        }
    }

    if part.end < walk.end {
        for (var c = 0u; c < CARRIED_COLUMNS; c++) { // unroll
            for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                let at = first_sums + r * EDGE * SUMS_STRIDE4;
                coopStoreT(acc[r * V_TILES + c], &sums[at * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
            }
            workgroupBarrier(); // orders sums: the matrices have been written
            for (var i = 0u; i < CARRIED_EACH; i++) { // unroll in registers
                let e = lane + i * LANES;
                if e < ROWS * EDGE / 4u {
                    carry4(c * CARRIED_EACH + i, sums4(sums_at(first_sums, e)), tile);
                }
            }
            workgroupBarrier(); // orders sums: they have been read
        }
        carry_folded(CARRIED_SUMS + ROWS_EACH, tile);
        for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
            let numbers = vec4<f32>(row_reference[i], row_sum[i], f32((spoiled_rows >> i) & 1u), 0.0);
            carry4(CARRIED_SUMS + i, numbers, tile);
        }
        return;
    }

    // The parts of a row's sum, added in the same order by all that need it. Factors were read only where sums moved, before a barrier;
    // the first barrier below orders the parts.
    for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
        // A score of +infinity leaves its row such a reference.
        let spoiled = ((spoiled_rows >> i) & 1u) == 1u || is_infinity(row_reference[i]);
        row_factors[(first + own_row + i * LANES) * PARTS + own_part / PART4] = select(row_sum[i], SPOILED_SUM, spoiled);
    }
    for (var c = 0u; c < V_TILES; c++) { // unroll in registers
        for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
            let at = first_sums + r * EDGE * SUMS_STRIDE4;
            coopStoreT(acc[r * V_TILES + c], &sums[at * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
        }
        workgroupBarrier(); // orders sums: the matrices have been written
        for (var e = lane; e < ROWS * EDGE / 4u; e += LANES) {
            let r = e / (EDGE / 4u);
            let column = c * EDGE / 4u + e % (EDGE / 4u);
            if tile.first_row + r < tile.end_row && column < HEAD_DIM_V4 {
                let sum = sum_of_row(first + r);
                let value = sums4(sums_at(first_sums, e)) + folded4(c * CARRIED_EACH + (e - lane) / LANES);
                let mean = select(value / sum, vec4<f32>(), sum == 0.0);
                store_out(tile, place_of(tile.first_row + r), column, nan_if4(is_spoiled_sum(sum), mean));
            }
        }
        workgroupBarrier(); // orders sums: they have been read
    }
    for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
        let r = own_row + i * LANES;
        if own_part == 0u && tile.first_row + r < tile.end_row {
            let sum = sum_of_row(first + r);
            let lse = select((row_reference[i] - SHIFT + log2(sum)) * LN_2, LSE_EMPTY, sum == 0.0);
            store_lse(tile, place_of(tile.first_row + r), nan_if(is_spoiled_sum(sum), lse));
        }
    }
}

fn sum_of_row(row: u32) -> f32 {
    var sum = row_factors[row * PARTS];
    for (var part = 1u; part < PARTS; part++) {
        sum += row_factors[row * PARTS + part];
    }
    return sum;
}
