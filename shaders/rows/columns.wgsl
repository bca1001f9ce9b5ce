// Family `rows`: all GROUPS groups of a workgroup attend the same ROWS query rows, each group to keys of its own, with an online softmax
// in base 2 (FlashAttention-2, algorithm 1). The LANES invocations of a group share the row of a key: a lane takes K_CHUNK neighbouring
// vec4 of it, 16 bytes of memory, then the K_CHUNK vec4 that lie LANES * K_CHUNK further; and V_CHUNK of a value's row. So neighbouring
// lanes and groups read neighbouring memory; the loads of KEYS keys and of their values are in flight at once. The groups' results are
// combined at the end.
//
// For few rows, which are limited by reading k and v. The kernel's own file stores the result: store_out(tile, place, column, value) and
// store_lse(tile, place, lse).

// All groups have the same rows.
fn first_row_of(rows: RowTile, thread: Thread) -> u32 {
    return rows.begin;
}

// The c-th vec4 that a lane takes of a key's row, and of a query's.
fn column_of_k(lane: u32, c: u32) -> u32 {
    return (c / K_CHUNK * LANES + lane) * K_CHUNK + c % K_CHUNK;
}

// And of a value's row.
fn column_of_v(lane: u32, c: u32) -> u32 {
    return (c / V_CHUNK * LANES + lane) * V_CHUNK + c % V_CHUNK;
}

// The place in the walk of a group's i-th key.
fn place_of_key(tile_begin: u32, i: u32, thread: Thread) -> u32 {
    return tile_begin + i * GROUPS + group_of(thread);
}

fn attend_rows(tile: Tile, walk: Walk) {
    let part = part_of(walk);
    if part.is_over {
        return;
    }
    let thread = tile.thread;
    let lane = lane_of(thread);
    let group = group_of(thread);
    let k_rows = k_rows_of(tile);
    let v_rows = v_rows_of(tile);

    var q4: array<array<vec4<f32>, K_COLS>, ROWS>;
    var acc: array<array<vec4<f32>, COLS>, ROWS>;
    var row_max: array<f32, ROWS>;
    var row_sum: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) { // unroll in registers
        let q_at = q_index(tile, place_of(tile.first_row + r));
        for (var c = 0u; c < K_COLS; c++) { // unroll in registers
            q4[r][c] = widen_q(q[q_at + min(column_of_k(lane, c), HEAD_DIM4 - 1u)]);
        }
        row_max[r] = MASKED;
        row_sum[r] = 0.0;
        for (var c = 0u; c < COLS; c++) { // unroll in registers
            acc[r][c] = vec4<f32>();
        }
    }
    // One bit for each row: one of the group's scores was NaN.
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
        // Issues all loads of the group's keys and values before anything waits for one.
        var keys: array<u32, KEYS>;
        for (var i = 0u; i < KEYS; i++) { // unroll in registers
            keys[i] = walk_key(walk, place_of_key(tile_begin, i, thread));
        }
        var k4: array<array<KChunk, K_COLS / K_PER_LOAD>, KEYS>;
        for (var i = 0u; i < KEYS; i++) { // unroll in registers
            let k_at = k_rows.begin + key_row(k_rows, keys[i]);
            for (var c = 0u; c < K_COLS / K_PER_LOAD; c++) { // unroll in registers
                k4[i][c] = k[(k_at + min(column_of_k(lane, c * K_PER_LOAD), HEAD_DIM4 - K_PER_LOAD)) / K_PER_LOAD];
            }
        }
        var v4: array<array<VChunk, COLS / V_PER_LOAD>, KEYS>;
        for (var i = 0u; i < KEYS; i++) { // unroll in registers
            let v_at = v_rows.begin + key_row(v_rows, keys[i]);
            for (var c = 0u; c < COLS / V_PER_LOAD; c++) { // unroll in registers
                v4[i][c] = v[(v_at + min(column_of_v(lane, c * V_PER_LOAD), HEAD_DIM_V4 - V_PER_LOAD)) / V_PER_LOAD];
            }
        }

        // This lane's share of each score, then the sum over the lanes.
        var scores: array<array<f32, KEYS>, ROWS>;
        for (var i = 0u; i < KEYS; i++) { // unroll in registers
            for (var r = 0u; r < ROWS; r++) { // unroll in registers
                scores[r][i] = 0.0;
            }
            for (var c = 0u; c < K_COLS; c++) { // unroll in registers
                // Columns past the row's end count as 0, whatever was loaded.
                let counts = K_COLS * LANES == HEAD_DIM4 || column_of_k(lane, c) < HEAD_DIM4;
                let key4 = select(vec4<f32>(), widen_part_k(k4[i][c / K_PER_LOAD], c % K_PER_LOAD), counts);
                for (var r = 0u; r < ROWS; r++) { // unroll in registers
                    scores[r][i] = fma(q4[r][c].x, key4.x, fma(q4[r][c].y, key4.y,
                        fma(q4[r][c].z, key4.z, fma(q4[r][c].w, key4.w, scores[r][i]))));
                }
            }
            for (var r = 0u; r < ROWS; r++) { // unroll in registers
                scores[r][i] = give_sum(scores[r][i], r * KEYS + i, thread);
            }
        }
        join_sum(thread);
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                scores[r][i] = modified(take(scores[r][i], r * KEYS + i, thread), params.scale, score_rows[r], keys[i]);
            }
        }

        // Mask.
        let is_full = is_seen_whole(walk, tile_begin);
        if !is_full {
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                let rows = walk_rows(walk, place_of_key(tile_begin, i, thread));
                for (var r = 0u; r < ROWS; r++) { // unroll in registers
                    let row = tile.first_row + r;
                    scores[r][i] = select(MASKED, scores[r][i], row >= rows.begin && row < rows.end);
                }
            }
        }

        // Online softmax: rescale the sums to the new maximum, and turn scores into weights.
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            var new_max = row_max[r];
            // A NaN score survives in this sum. Otherwise only +infinity meeting -infinity makes the sum NaN, and the row
            // is NaN then as well.
            var total = 0.0;
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                new_max = max(new_max, scores[r][i]);
                total += scores[r][i];
            }
            non_finite_rows |= select(0u, 1u << r, is_nan(total));
            let rescale = max(exp2(row_max[r] - new_max), LEAST_WEIGHT);
            row_max[r] = new_max;
            row_sum[r] *= rescale;
            for (var c = 0u; c < COLS; c++) { // unroll in registers
                acc[r][c] *= rescale;
            }
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                // A weight of 0 for masked keys, and for -infinity.
                scores[r][i] = select(0.0, max(exp2(scores[r][i] - new_max), LEAST_WEIGHT), scores[r][i] > MASKED);
                row_sum[r] += scores[r][i];
            }
        }

        // Output of this lane's columns.
        if is_full {
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                for (var c = 0u; c < COLS; c++) { // unroll in registers
                    let value4 = widen_part_v(v4[i][c / V_PER_LOAD], c % V_PER_LOAD);
                    for (var r = 0u; r < ROWS; r++) { // unroll in registers
                        acc[r][c] = fma(vec4<f32>(scores[r][i]), value4, acc[r][c]);
                    }
                }
            }
        } else {
            // A masked key may hold NaN or infinity, and 0 * NaN is NaN, so rows that do not see a key must not multiply by it.
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                for (var c = 0u; c < COLS; c++) { // unroll in registers
                    let value4 = widen_part_v(v4[i][c / V_PER_LOAD], c % V_PER_LOAD);
                    for (var r = 0u; r < ROWS; r++) { // unroll in registers
                        let sum = acc[r][c];
                        acc[r][c] = select(sum, fma(vec4<f32>(scores[r][i]), value4, sum), scores[r][i] != 0.0);
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
    for (var turn = 0u; turn < ROWS / SUMMED_ROWS; turn++) { // unroll in registers
        if turn > 0u {
            workgroupBarrier(); // orders group_out, group_max and group_sum: the rows before have been read
        }
        for (var i = 0u; i < SUMMED_ROWS; i++) { // unroll in registers
            let r = turn * SUMMED_ROWS + i;
            let at = i * JOINED + group;
            for (var c = 0u; c < COLS; c++) { // unroll in registers
                if COLS * LANES == HEAD_DIM_V4 || column_of_v(lane, c) < HEAD_DIM_V4 {
                    group_out[at * HEAD_DIM_V4 + column_of_v(lane, c)] = acc[turn * SUMMED_ROWS + i][c];
                }
            }
            if lane == 0u {
                group_max[at] = row_max[turn * SUMMED_ROWS + i];
                let non_finite = ((non_finite_rows >> r) & 1u) == 1u || is_infinity(row_max[turn * SUMMED_ROWS + i]);
                group_sum[at] = select(row_sum[turn * SUMMED_ROWS + i], NON_FINITE_SUM, non_finite);
            }
        }
        workgroupBarrier(); // orders group_out, group_max and group_sum: the other groups' have been written
        store_rows(tile, tile.first_row + turn * SUMMED_ROWS, group * LANES + lane);
    }
}
