// Family `rows`: one group of LANES invocations, a subgroup, attends ROWS query rows to a range of keys with the device's
// products of EDGE x EDGE matrices. Tiles of keys and values lie in workgroup memory for all groups.
//
// The elements of a matrix can be accessed only in workgroup memory, where scores turn into weights. Sums stay in matrices as long as
// possible: a row's weights are relative to a reference that may lag behind its maximum by SLACK, and the row's sums are rescaled only
// when a score passes the reference by more (as in FlashAttention-4).
//
// A tile takes two barriers. Before the first the group multiplies the weights of the tile before by its values, and queries by this
// tile's keys; after it a lane turns its rows' scores into weights, and the next tile's keys and this one's values take the place of those
// read. They are loaded from storage while matrices are multiplied. So no half reads what it writes, and no array is needed twice.
//
// The loop over tiles has no more than that, and is left where sums must move: what stood within it would cost it registers, and copies
// between them, on every turn.
//
// No subgroup operations: one known driver crashes on a module with both. Nor does the code rely on an order within a subgroup: WGSL
// guarantees none, and subgroupBarrier orders no workgroup memory in naga. Invocations are numbered through the subgroups, which are full.

// A reference lies SHIFT below the score that set it, so that weights, exp2(score - reference), are at most 2^(SLACK + SHIFT), which f16
// holds, and small ones do not underflow.

// Each group has rows of its own.
fn first_row_of(rows: RowTile, thread: Thread) -> u32 {
    return rows.begin + group_of(thread) * ROWS;
}

// Tiles are counted from 1 at the beginning of the walk, so that nothing depends on how it is cut.
fn tile_number(walk: Walk, tile_begin: u32) -> u32 {
    return (tile_begin - walk.begin) / TILE_KV + 1u;
}

// Every group of a workgroup must be given the same `walk`, since this function has barriers.
fn attend_rows(tile: Tile, walk: Walk) {
    let part = part_of(walk);
    if part.is_over {
        return;
    }
    let thread = tile.thread;
    let lane = lane_of(thread);
    let first = group_of(thread) * ROWS;
    let k_rows = k_rows_of(tile);
    let v_rows = v_rows_of(tile);
    let first_sums = first * SUMS_STRIDE4;
    let first_a = first * A_STRIDE4;
    // PARTS lanes share a row, or a lane has ROWS_EACH rows.
    let own_row = lane % ROWS;
    let own_part = lane / ROWS * PART4;
    prepare_factors(tile, own_row);

    // Queries come in through tile_a, later the weights' array, as many columns at a time as it holds.
    var queries: array<MatrixA, ROW_TILES * Q_TILES>;
    for (var chunk = 0u; chunk < Q_TILES / KEY_TILES; chunk++) {
        put_queries(chunk, first_a, tile, lane);
        workgroupBarrier(); // orders tile_a: the other lanes' have been written
        for (var m = 0u; m < Q_TILES / KEY_TILES; m++) { // unroll in registers
            if m == chunk {
                for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
                    for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                        queries[r * Q_TILES + m * KEY_TILES + n] =
                            coopLoadT<MatrixA>(&tile_a[(first_a + r * EDGE * A_STRIDE4 + n * EDGE / 4u) * PER_VEC4], A_STRIDE4 * PER_VEC4);
                    }
                }
            }
        }
        workgroupBarrier(); // orders tile_a: all have been read
    }

    var acc: array<MatrixC, ROW_TILES * V_TILES>;
    for (var m = 0u; m < ROW_TILES * V_TILES; m++) { // unroll in registers
        acc[m] = MatrixC();
    }
    var row_reference: array<f32, ROWS_EACH>;
    var row_sum: array<f32, ROWS_EACH>;
    var row_factor: array<f32, ROWS_EACH>;
    for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
        row_reference[i] = MASKED;
        row_sum[i] = 0.0;
    }
    // One bit for each of the lane's rows: one of its scores was NaN.
    var non_finite_rows = 0u;
    if part.resumes {
        for (var c = 0u; c < CARRIED_COLUMNS; c++) {
            for (var e = lane; e < ROWS * EDGE / 4u; e += LANES) {
                put_sums4(sums_at(first_sums, e), carried4(c * CARRIED_EACH + (e - lane) / LANES, tile));
            }
            workgroupBarrier(); // orders sums: they are what the matrices are to be
            for (var m = 0u; m < CARRIED_COLUMNS; m++) { // unroll in registers
                if m == c {
                    for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                        acc[r * V_TILES + m] =
                            coopLoadT<MatrixC>(&sums[(first_sums + r * EDGE * SUMS_STRIDE4) * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
                    }
                }
            }
            workgroupBarrier(); // orders sums: the matrices have been read
        }
        resume_folded(CARRIED_SUMS + ROWS_EACH, tile);
        for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
            let numbers = carried4(CARRIED_SUMS + i, tile);
            row_reference[i] = numbers.x;
            row_sum[i] = numbers.y;
            non_finite_rows |= select(0u, 1u << i, numbers.z != 0.0);
        }
    }
    if thread.index == 0u {
        atomicStore(&last_tiles[MOVING], 0u);
        atomicStore(&last_tiles[NON_FINITE], 0u);
    }

    // Before the first tile the weights are 0, and the values -0: products that change no bit of a sum.
    let first_tile = next_tile(walk, part.begin);
    if first_tile < part.end {
        for (var i = 0u; i < K_EACH; i++) { // unroll in registers
            put_loaded_k4(i, loaded_k4(i, k_rows, walk, first_tile, thread), thread);
        }
        for (var e = thread.index; e < TILE_V4; e += WORKGROUP_SIZE) {
            put_v4(e, -vec4<f16>());
        }
        for (var e = lane; e < ROWS * A_STRIDE4; e += LANES) {
            put_a4(first_a + e, vec4<f16>());
        }
        workgroupBarrier(); // orders tile_k, tile_v, tile_a and last_tiles: the other invocations' have been written
    }
    var tile_begin = first_tile;
    var next = first_tile;
    while next < part.end {
        // The tiles up to one after which sums move.
        loop {
            tile_begin = next;
            next = next_tile(walk, tile_begin + TILE_KV);
            // No condition stands between these loads and the copies below: compilers move loads past conditions, to where their values are
            // used. After the last tile of the walk its last key is loaded again, and not used.
            var k_next: array<KElem4, K_EACH>;
            var v_next: array<VElem4, V_EACH>;
            for (var i = 0u; i < K_EACH; i++) { // unroll in registers
                k_next[i] = loaded_k4(i, k_rows, walk, next, thread);
            }
            for (var i = 0u; i < V_EACH; i++) { // unroll in registers
                v_next[i] = loaded_v4(i, v_rows, walk, tile_begin, thread);
            }
            var own: array<MatrixA, ROW_TILES * KEY_TILES>;
            for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
                for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                    own[n * ROW_TILES + r] =
                        coopLoadT<MatrixA>(&tile_a[(first_a + r * EDGE * A_STRIDE4 + n * EDGE / 4u) * PER_VEC4], A_STRIDE4 * PER_VEC4);
                }
            }
            for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
                for (var c = 0u; c < V_TILES; c++) { // unroll in registers
                    let values = coopLoadT<MatrixB>(&tile_v[(n * EDGE * V_STRIDE4 + c * EDGE / 4u) * PER_VEC4], V_STRIDE4 * PER_VEC4);
                    for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                        acc[r * V_TILES + c] = coopMultiplyAdd(own[n * ROW_TILES + r], values, acc[r * V_TILES + c]);
                    }
                }
            }
            var products: array<MatrixC, ROW_TILES * KEY_TILES>;
            for (var m = 0u; m < ROW_TILES * KEY_TILES; m++) { // unroll in registers
                products[m] = MatrixC();
            }
            for (var d = 0u; d < K_TILES; d++) { // unroll in registers
                for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
                    let keys = coopLoad<MatrixB>(&tile_k[(n * EDGE * K_STRIDE4 + d * EDGE / 4u) * PER_VEC4], K_STRIDE4 * PER_VEC4);
                    for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                        products[n * ROW_TILES + r] = coopMultiplyAdd(queries[r * Q_TILES + d], keys, products[n * ROW_TILES + r]);
                    }
                }
            }
            for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
                for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                    coopStoreT(
                        products[n * ROW_TILES + r],
                        &sums[(first_sums + r * EDGE * SUMS_STRIDE4 + n * EDGE / 4u) * PER_VEC4],
                        SUMS_STRIDE4 * PER_VEC4,
                    );
                }
            }
            workgroupBarrier(); // orders sums, tile_a, tile_k and tile_v: scores have been written, the others read for the last time

            // Scores turn into weights, and the next tiles take the place of those read.
            let number = tile_number(walk, tile_begin);
            let is_full = is_seen_whole(walk, tile_begin);
            for (var i = 0u; i < K_EACH; i++) { // unroll in registers
                put_loaded_k4(i, k_next[i], thread);
            }
            for (var i = 0u; i < V_EACH; i++) { // unroll in registers
                put_loaded_v4(i, v_next[i], thread);
            }
            for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
                let r = own_row + i * LANES;
                let row = tile.first_row + r;
                let scores_at = first_sums + r * SUMS_STRIDE4;
                let own_at = scores_at + own_part;
                let weights_at = first_a + r * A_STRIDE4 + own_part;
                let scale = score_scale(i);
                let score_at = score_row(tile, row, walk);
                var score4: array<vec4<f32>, PART4>;
                for (var j = 0u; j < PART4; j++) { // unroll in registers
                    score4[j] = modified4(sums4(own_at + j), scale, score_at, walk, tile_begin + (own_part + j) * 4u);
                }
                if !is_full {
                    for (var j = 0u; j < PART4; j++) { // unroll in registers
                        score4[j] = seen4(score4[j], row, walk, tile_begin + (own_part + j) * 4u);
                    }
                }
                var max4 = vec4<f32>(MASKED);
                var total4 = vec4<f32>();
                for (var j = 0u; j < PART4; j++) { // unroll in registers
                    max4 = max(max4, score4[j]);
                    total4 += score4[j];
                }
                // The other lanes of the row find the same maximum.
                for (var j = PART4; j < TILE_KV / 4u; j++) {
                    let key4 = (own_part + j) % (TILE_KV / 4u);
                    var other4 = modified4(sums4(scores_at + key4), scale, score_at, walk, tile_begin + key4 * 4u);
                    if !is_full {
                        other4 = seen4(other4, row, walk, tile_begin + key4 * 4u);
                    }
                    max4 = max(max4, other4);
                }
                // If one of the scores is NaN, so is their sum. Infinities of both signs also give NaN; such a row's result is NaN anyway.
                non_finite_rows |= select(0u, 1u << i, any_nan(total4));
                let tile_max = max(max(max4.x, max4.y), max(max4.z, max4.w));
                let moves = tile_max > row_reference[i] + (SLACK + SHIFT);
                // Before anything has been added, there is nothing to rescale.
                if moves && row_reference[i] != MASKED {
                    atomicMax(&last_tiles[MOVING], number);
                }
                let reference = select(row_reference[i], tile_max - SHIFT, moves);
                row_factor[i] = select(1.0, exp2(row_reference[i] - reference), moves);
                row_reference[i] = reference;
                var sum4 = vec4<f32>();
                for (var j = 0u; j < PART4; j++) { // unroll in registers
                    // A weight of 0 for masked keys, and for -infinity.
                    let weight4 = select(vec4<f32>(), exp2(score4[j] - reference), score4[j] > vec4<f32>(MASKED));
                    // The unrounded weights: compilers drop a rounding to f16 and back, and the rounding below may go either way.
                    sum4 += weight4;
                    put_a4(weights_at + j, vec4<f16>(weight4));
                }
                row_sum[i] = row_sum[i] * row_factor[i] + ((sum4.x + sum4.y) + (sum4.z + sum4.w));
            }
            if !is_full {
                for (var i = 0u; i < V_EACH; i++) { // unroll in registers
                    set_aside_v4(i, v_next[i], number, thread);
                }
            }
            workgroupBarrier(); // orders tile_a, tile_k, tile_v, last_tiles and sums: written by other lanes, and read for the last time
            let folds = is_folded_after(number, tile_number(walk, next));
            if (next >= part.end) | folds | (atomicLoad(&last_tiles[MOVING]) == number) {
                break;
            }
        }
        let number = tile_number(walk, tile_begin);
        let folds = is_folded_after(number, tile_number(walk, next));
        if folds || atomicLoad(&last_tiles[MOVING]) == number {
            let non_finite = atomicLoad(&last_tiles[NON_FINITE]) == number;
            if own_part == 0u {
                for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
                    row_factors[first + own_row + i * LANES] = row_factor[i];
                }
            }
            for (var c = 0u; c < V_TILES; c++) {
                for (var m = 0u; m < V_TILES; m++) { // unroll in registers
                    if m == c {
                        for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                            coopStoreT(
                                acc[r * V_TILES + m],
                                &sums[(first_sums + r * EDGE * SUMS_STRIDE4) * PER_VEC4],
                                SUMS_STRIDE4 * PER_VEC4,
                            );
                        }
                    }
                }
                workgroupBarrier(); // orders sums and row_factors: the matrices have been written
                move_sums4(c, Move(tile_begin, non_finite, folds), tile, walk);
                workgroupBarrier(); // orders sums: they are what the matrices are to be
                for (var m = 0u; m < V_TILES; m++) { // unroll in registers
                    if m == c {
                        for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                            acc[r * V_TILES + m] =
                                coopLoadT<MatrixC>(&sums[(first_sums + r * EDGE * SUMS_STRIDE4) * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
                        }
                    }
                }
                workgroupBarrier(); // orders sums: the matrices have been read
            }
        }
    }
    // The last tile's weights by its values.
    if first_tile < part.end {
        var own: array<MatrixA, ROW_TILES * KEY_TILES>;
        for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
            for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                own[n * ROW_TILES + r] =
                    coopLoadT<MatrixA>(&tile_a[(first_a + r * EDGE * A_STRIDE4 + n * EDGE / 4u) * PER_VEC4], A_STRIDE4 * PER_VEC4);
            }
        }
        for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
            for (var c = 0u; c < V_TILES; c++) { // unroll in registers
                let values = coopLoadT<MatrixB>(&tile_v[(n * EDGE * V_STRIDE4 + c * EDGE / 4u) * PER_VEC4], V_STRIDE4 * PER_VEC4);
                for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                    acc[r * V_TILES + c] = coopMultiplyAdd(own[n * ROW_TILES + r], values, acc[r * V_TILES + c]);
                }
            }
        }
    }

    // Sums leave their matrices column by column: unchanged for the next part of the walk, or divided for out.
    let goes_on = part.end < walk.end;
    for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
        if goes_on {
            let numbers = vec4<f32>(row_reference[i], row_sum[i], f32((non_finite_rows >> i) & 1u), 0.0);
            carry4(CARRIED_SUMS + i, numbers, tile);
        } else {
            // A score of +infinity gives its row such a reference. Factors were read only where sums were rescaled, before a barrier; the
            // first barrier below orders these partial sums of rows, which every reader adds in the same order.
            let non_finite = ((non_finite_rows >> i) & 1u) == 1u || is_infinity(row_reference[i]);
            row_factors[(first + own_row + i * LANES) * PARTS + own_part / PART4] = select(row_sum[i], NON_FINITE_SUM, non_finite);
            if own_part == 0u {
                let place = place_of(tile.first_row + own_row + i * LANES);
                keep_total(first + own_row + i * LANES, head_of(tile, place), row_reference[i]);
            }
        }
    }
    for (var c = 0u; c < V_TILES; c++) {
        for (var m = 0u; m < V_TILES; m++) { // unroll in registers
            if m == c {
                for (var r = 0u; r < ROW_TILES; r++) { // unroll in registers
                    coopStoreT(acc[r * V_TILES + m], &sums[(first_sums + r * EDGE * SUMS_STRIDE4) * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
                }
            }
        }
        workgroupBarrier(); // orders sums and row_factors: the matrices have been written, and what keep_total writes
        if goes_on {
            for (var e = lane; e < ROWS * EDGE / 4u; e += LANES) {
                carry4(c * CARRIED_EACH + (e - lane) / LANES, sums4(sums_at(first_sums, e)), tile);
            }
        } else {
            store_column(c, tile);
        }
        workgroupBarrier(); // orders sums: they have been read
    }
    if goes_on {
        carry_folded(CARRIED_SUMS + ROWS_EACH, tile);
        return;
    }
    for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
        let r = own_row + i * LANES;
        if own_part == 0u && tile.first_row + r < tile.end_row {
            let sum = sum_of_row(first + r);
            store_lse(tile, place_of(tile.first_row + r), lse_of(row_reference[i], sum, is_non_finite_sum(sum)));
        }
    }
}
