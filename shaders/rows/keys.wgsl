// Family `rows`: one group of LANES invocations attends ROWS query rows to a range of keys, tile by tile, with an online softmax in
// base 2 (FlashAttention-2, algorithm 1). Lanes split the keys of a tile for the scores, KEYS each, and the columns of v
// for the output, COLS vec4 each; rows are the same for all lanes, so that a row's operands are loaded once a group.
//
// The kernel's own file stores the result: store_out(tile, place, column, value) and store_lse(tile, place, lse).

// The softmax weights of a tile, four keys in an element: lanes exchange them between scores and output.
var<workgroup> weights: array<vec4<f32>, GROUPS * ROWS * WEIGHTS_STRIDE>;

// Each group has rows of its own.
fn first_row_of(rows: RowTile, thread: Thread) -> u32 {
    return rows.begin + group_of(thread) * ROWS;
}

fn column_of(thread: Thread, c: u32) -> u32 {
    return min(lane_of(thread) + c * LANES, HEAD_DIM_V4 - 1u);
}

// Every group of a workgroup must be given the same `walk`, since this function has barriers.
fn attend_rows(tile: Tile, walk: Walk) {
    let part = part_of(walk);
    if part.is_over {
        return;
    }
    let thread = tile.thread;
    let lane = lane_of(thread);
    let first_weight = group_of(thread) * ROWS * WEIGHTS_STRIDE;
    let k_rows = k_rows_of(tile);
    let v_rows = v_rows_of(tile);
    // This lane loads one of every SHARE rows and gets the others from other lanes.
    let own = lane % SHARE;
    var q_at: array<u32, SLOTS>;
    for (var slot = 0u; slot < SLOTS; slot++) { // unroll
        q_at[slot] = q_index(tile, place_of(tile.first_row + slot * SHARE + own));
    }
    keep_queries(tile, own);

    var acc: array<array<vec4<f32>, COLS>, ROWS>;
    var row_max: array<f32, ROWS>;
    var row_sum: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { // unroll in registers
        row_max[r] = MASKED;
        row_sum[r] = 0.0;
        for (var c = 0u; c < COLS; c++) { // unroll in registers
            acc[r][c] = vec4<f32>();
        }
    }
    // One bit for each row: one of this lane's scores was NaN.
    var non_finite_rows = 0u;

    if part.resumes {
        // One long loop: some compilers unroll short loops on their own, and take very long over the result.
        for (var i = 0u; i < CARRIED; i++) { // unroll in registers
            let value = carried4(i, tile);
            if i % (COLS + 1u) == COLS {
                row_max[i / (COLS + 1u)] = value.x;
                row_sum[i / (COLS + 1u)] = value.y;
                non_finite_rows |= select(0u, 1u << (i / (COLS + 1u)), value.z != 0.0);
            } else {
                acc[i / (COLS + 1u)][min(i % (COLS + 1u), COLS - 1u)] = value;
            }
        }
    }

    var score_rows: array<ScoreRow, ROWS>;
    for (var r = 0u; r < ROWS; r++) { // unroll in registers
        score_rows[r] = score_row(tile, tile.first_row + r, walk);
    }
    for (var tile_begin = next_tile(walk, part.begin); tile_begin < part.end; tile_begin = next_tile(walk, tile_begin + TILE_KV)) {
        // Scores of this lane's keys.
        var k_at: array<u32, KEYS>;
        for (var c = 0u; c < KEYS; c++) { // unroll in registers
            k_at[c] = k_rows.begin + key_row(k_rows, walk_key(walk, tile_begin + lane * KEYS + c));
        }
        var scores: array<array<f32, KEYS>, ROWS>;
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            for (var c = 0u; c < KEYS; c++) { // unroll in registers
                scores[r][c] = 0.0;
            }
        }
        for (var d4 = 0u; d4 < HEAD_DIM4; d4++) {
            var k4: array<vec4<f32>, KEYS>;
            for (var c = 0u; c < KEYS; c++) { // unroll in registers
                k4[c] = widen_k(k[k_at[c] + d4]);
            }
            for (var slot = 0u; slot < SLOTS; slot++) { // unroll
                let loaded = query4(slot, q_at[slot], d4);
                for (var t = 0u; t < SHARE; t++) { // unroll
                    let q4 = from_lane(loaded, t, thread);
                    for (var c = 0u; c < KEYS; c++) { // unroll in registers
                        scores[slot * SHARE + t][c] = fma(q4.x, k4[c].x, fma(q4.y, k4[c].y,
                            fma(q4.z, k4[c].z, fma(q4.w, k4[c].w, scores[slot * SHARE + t][c]))));
                    }
                }
            }
        }

        // Modifiers, then the mask. `is_full` may or may not be uniform in the workgroup; no barrier depends on it.
        let is_full = is_seen_whole(walk, tile_begin);
        for (var c = 0u; c < KEYS; c++) { // unroll in registers
            let key = walk_key(walk, tile_begin + lane * KEYS + c);
            for (var r = 0u; r < ROWS; r++) { // unroll in registers
                scores[r][c] = modified(scores[r][c], params.scale, score_rows[r], key);
            }
        }
        if !is_full {
            for (var c = 0u; c < KEYS; c++) { // unroll in registers
                let rows = walk_rows(walk, tile_begin + lane * KEYS + c);
                for (var r = 0u; r < ROWS; r++) { // unroll in registers
                    let row = tile.first_row + r;
                    let sees = row >= rows.begin && row < rows.end;
                    scores[r][c] = select(MASKED, scores[r][c], sees);
                }
            }
        }

        // Online softmax: rescale the sums to the new maximum, and write the weights for the other lanes.
        var tile_max: array<f32, ROWS>;
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            tile_max[r] = scores[r][0];
            for (var c = 1u; c < KEYS; c++) { // unroll in registers
                tile_max[r] = max(tile_max[r], scores[r][c]);
            }
            tile_max[r] = give_max(tile_max[r], r, thread);
        }
        join_max(thread);
        workgroupBarrier(); // orders weights, what join_max and gather_slots write: the previous tile's have been read
        gather_slots(walk, v_rows, tile_begin, thread);
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            let new_max = max(row_max[r], take(tile_max[r], r, thread));
            let rescale = exp2(row_max[r] - new_max);
            row_max[r] = new_max;
            row_sum[r] *= rescale;
            for (var c = 0u; c < COLS; c++) { // unroll in registers
                acc[r][c] *= rescale;
            }
            // A NaN score survives in this sum. Otherwise only +infinity meeting -infinity makes the sum NaN, and the row
            // is NaN then as well.
            var total = scores[r][0];
            for (var c = 1u; c < KEYS; c++) { // unroll in registers
                total += scores[r][c];
            }
            non_finite_rows |= select(0u, 1u << r, is_nan(total));
            for (var c4 = 0u; c4 < KEYS / 4u; c4++) { // unroll in registers
                let score4 = vec4<f32>(
                    scores[r][c4 * 4u], scores[r][c4 * 4u + 1u], scores[r][c4 * 4u + 2u], scores[r][c4 * 4u + 3u]);
                // A weight of 0 for masked keys, and for -infinity.
                let weight4 =
                    select(vec4<f32>(), max(exp2(score4 - new_max), vec4<f32>(LEAST_WEIGHT)), score4 > vec4<f32>(MASKED));
                row_sum[r] += weight4.x + weight4.y + weight4.z + weight4.w;
                weights[first_weight + r * WEIGHTS_STRIDE + lane * (KEYS / 4u) + c4] = weight4;
            }
        }
        workgroupBarrier(); // orders weights and keys: the other lanes' have been written

        // Output of this lane's columns.
        if is_full {
            for (var key4 = 0u; key4 < TILE_KV / 4u; key4++) {
                var v4: array<array<vec4<f32>, COLS>, 4>;
                for (var i = 0u; i < 4u; i++) { // unroll in registers
                    let slot = gathered_slot(walk, v_rows, tile_begin, key4 * 4u + i, thread);
                    let v_at = v_rows.begin + slot_row(v_rows, slot);
                    for (var c = 0u; c < COLS; c++) { // unroll in registers
                        v4[i][c] = widen_v(v[v_at + column_of(thread, c)]);
                    }
                }
                for (var slot = 0u; slot < SLOTS; slot++) { // unroll
                    let loaded = weights[first_weight + (slot * SHARE + own) * WEIGHTS_STRIDE + key4];
                    for (var t = 0u; t < SHARE; t++) { // unroll
                        let w = from_lane(loaded, t, thread);
                        for (var c = 0u; c < COLS; c++) { // unroll in registers
                            acc[slot * SHARE + t][c] = fma(vec4<f32>(w.x), v4[0][c], fma(vec4<f32>(w.y), v4[1][c],
                                fma(vec4<f32>(w.z), v4[2][c], fma(vec4<f32>(w.w), v4[3][c], acc[slot * SHARE + t][c]))));
                        }
                    }
                }
            }
        } else {
            // A masked key may hold NaN or infinity, and 0 * NaN is NaN, so rows that do not see a key must not multiply by it.
            for (var key4 = 0u; key4 < TILE_KV / 4u; key4++) {
                var v4: array<array<vec4<f32>, COLS>, 4>;
                for (var i = 0u; i < 4u; i++) { // unroll in registers
                    let slot = gathered_slot_in_range(walk, v_rows, tile_begin, key4 * 4u + i, thread);
                    let v_at = v_rows.begin + slot_row(v_rows, slot);
                    for (var c = 0u; c < COLS; c++) { // unroll in registers
                        v4[i][c] = widen_v(v[v_at + column_of(thread, c)]);
                    }
                }
                for (var slot = 0u; slot < SLOTS; slot++) { // unroll
                    let loaded = weights[first_weight + (slot * SHARE + own) * WEIGHTS_STRIDE + key4];
                    for (var t = 0u; t < SHARE; t++) { // unroll
                        let w = from_lane(loaded, t, thread);
                        for (var i = 0u; i < 4u; i++) { // unroll in registers
                            for (var c = 0u; c < COLS; c++) { // unroll in registers
                                let sum = acc[slot * SHARE + t][c];
                                acc[slot * SHARE + t][c] = select(sum, fma(vec4<f32>(w[i]), v4[i][c], sum), w[i] != 0.0);
                            }
                        }
                    }
                }
            }
        }
    }

    if part.end < walk.end {
        for (var i = 0u; i < CARRIED; i++) { // unroll in registers
            if i % (COLS + 1u) == COLS {
                let r = i / (COLS + 1u);
                carry4(i, vec4<f32>(row_max[r], row_sum[r], f32((non_finite_rows >> r) & 1u), 0.0), tile);
            } else {
                carry4(i, acc[i / (COLS + 1u)][min(i % (COLS + 1u), COLS - 1u)], tile);
            }
        }
        return;
    }
    for (var r = 0u; r < ROWS; r++) { // unroll in registers
        row_sum[r] = give_sum(select(row_sum[r], NON_FINITE_SUM, ((non_finite_rows >> r) & 1u) == 1u), r, thread);
    }
    join_sum(thread);
    var place = place_of(tile.first_row);
    for (var r = 0u; r < ROWS; r++) { // unroll in registers
        if tile.first_row + r < tile.end_row {
            let sum = take(row_sum[r], r, thread);
            let total = total_of(sum, head_of(tile, place), row_max[r]);
            let non_finite = is_non_finite_sum(sum) || is_infinity(row_max[r]);
            for (var c = 0u; c < COLS; c++) { // unroll in registers
                // The first condition is constant: most columns need no other.
                if (c + 1u) * LANES <= HEAD_DIM_V4 || lane + c * LANES < HEAD_DIM_V4 {
                    store_out(tile, place, lane + c * LANES, mean4(acc[r][c], sum, total, non_finite));
                }
            }
            if lane == 0u {
                store_lse(tile, place, lse_of(row_max[r], sum, non_finite));
            }
        }
        place = next_place(place);
    }
}
