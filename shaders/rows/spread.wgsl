// Family `rows`: like `columns`, where lanes exchange numbers by shuffles. The scores of a tile, KEYS of each of the ROWS rows, are spread
// over the LANES lanes of a group: while the lanes' shares of scores are added up, each lane keeps half of the scores in every step. So a
// lane ends with OWN scores of one row, has that row's maximum and its part of that row's sum of weights, and hands its weights to the
// others. Score r * KEYS + i, of row r and key i, is lane (r * KEYS + i) / OWN's; where there are fewer scores than lanes, SPREAD of them,
// the lane SPREAD further has the same.
//
// The next tile's keys are loaded before a tile's weights are computed, its values at the tile's end; the first tile's before the queries.

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

// The same within the row: past its end the last ones.
fn column_within_k(lane: u32, c: u32) -> u32 {
    if K_COLS * LANES == HEAD_DIM4 {
        return column_of_k(lane, c);
    }
    return min(column_of_k(lane, c), HEAD_DIM4 - K_PER_LOAD);
}

fn column_within_v(lane: u32, c: u32) -> u32 {
    if COLS * LANES == HEAD_DIM_V4 {
        return column_of_v(lane, c);
    }
    return min(column_of_v(lane, c), HEAD_DIM_V4 - V_PER_LOAD);
}

// The place in the walk of a group's i-th key.
fn place_of_key(tile_begin: u32, i: u32, thread: Thread) -> u32 {
    return tile_begin + i * GROUPS + group_of(thread);
}

// Where the row of a group's i-th key begins, from `rows.begin` on; `first` is the place of the group's first key.
fn row_of_key(rows: KeyRows, walk: Walk, first: u32, i: u32, key: u32) -> u32 {
    return select(key_row(rows, key), run_row(rows, first, i * GROUPS, walk.end - 1u), WALK_IS_RUN);
}

// In all lanes the number that the lanes of row r have.
fn of_row(value: f32, r: u32, thread: Thread) -> f32 {
    if ROWS == 1u {
        return value;
    }
    return of_lane(value, r * (KEYS / OWN), thread);
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
    // The row of this lane's scores, and the first of their keys.
    let own_row = lane % SPREAD * OWN / KEYS;
    let own_key = lane % SPREAD * OWN % KEYS;

    var keys: array<u32, KEYS>;
    var k4: array<array<KChunk, K_COLS / K_PER_LOAD>, KEYS>;
    var v4: array<array<VChunk, COLS / V_PER_LOAD>, KEYS>;
    let first = next_tile(walk, part.begin);
    if first < part.end {
        for (var i = 0u; i < KEYS; i++) { // unroll in registers
            keys[i] = walk_key(walk, place_of_key(first, i, thread));
        }
        for (var i = 0u; i < KEYS; i++) { // unroll in registers
            let k_at = k_rows.begin + row_of_key(k_rows, walk, first + group, i, keys[i]);
            for (var c = 0u; c < K_COLS / K_PER_LOAD; c++) { // unroll in registers
                k4[i][c] = k[(k_at + column_within_k(lane, c * K_PER_LOAD)) / K_PER_LOAD];
            }
        }
        for (var i = 0u; i < KEYS; i++) { // unroll in registers
            let v_at = v_rows.begin + row_of_key(v_rows, walk, first + group, i, keys[i]);
            for (var c = 0u; c < COLS / V_PER_LOAD; c++) { // unroll in registers
                v4[i][c] = v[(v_at + column_within_v(lane, c * V_PER_LOAD)) / V_PER_LOAD];
            }
        }
    }

    var q4: array<array<vec4<f32>, K_COLS>, ROWS>;
    var acc: array<array<vec4<f32>, COLS>, ROWS>;
    for (var r = 0u; r < ROWS; r++) { // unroll in registers
        let q_at = q_index(tile, place_of(tile.first_row + r));
        for (var c = 0u; c < K_COLS; c++) { // unroll in registers
            q4[r][c] = widen_q(q[q_at + min(column_of_k(lane, c), HEAD_DIM4 - 1u)]);
        }
        for (var c = 0u; c < COLS; c++) { // unroll in registers
            acc[r][c] = vec4<f32>();
        }
    }
    // Of this lane's row: the maximum, and the sum of this lane's weights.
    var row_max = MASKED;
    var row_sum = 0.0;
    // One of this lane's scores was NaN.
    var non_finite = false;

    if part.resumes {
        for (var i = 0u; i < CARRIED; i++) { // unroll in registers
            let value = carried4(i, tile);
            if i == ROWS * COLS {
                row_max = value.x;
                row_sum = value.y;
                non_finite = value.z != 0.0;
            } else {
                acc[min(i / COLS, ROWS - 1u)][i % COLS] = value;
            }
        }
    }

    let row_of_scores = score_row(tile, tile.first_row + own_row, walk);
    var next = first;
    for (var tile_begin = first; tile_begin < part.end; tile_begin = next) {
        // This lane's share of each score.
        var scores: array<f32, VALUES>;
        for (var i = 0u; i < KEYS; i++) { // unroll in registers
            for (var c = 0u; c < K_COLS; c++) { // unroll in registers
                // Columns past the row's end count as 0, whatever was loaded.
                let counts = K_COLS * LANES == HEAD_DIM4 || column_of_k(lane, c) < HEAD_DIM4;
                let key4 = select(vec4<f32>(), widen_part_k(k4[i][c / K_PER_LOAD], c % K_PER_LOAD), counts);
                for (var r = 0u; r < ROWS; r++) { // unroll in registers
                    scores[r * KEYS + i] = fma(q4[r][c].x, key4.x, fma(q4[r][c].y, key4.y,
                        fma(q4[r][c].z, key4.z, fma(q4[r][c].w, key4.w, scores[r * KEYS + i]))));
                }
            }
        }
        next = next_tile(walk, tile_begin + TILE_KV);
        if next < part.end {
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                keys[i] = walk_key(walk, place_of_key(next, i, thread));
            }
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                let k_at = k_rows.begin + row_of_key(k_rows, walk, next + group, i, keys[i]);
                for (var c = 0u; c < K_COLS / K_PER_LOAD; c++) { // unroll in registers
                    k4[i][c] = k[(k_at + column_within_k(lane, c * K_PER_LOAD)) / K_PER_LOAD];
                }
            }
        }

        // The sums over lanes: of half of the values in each half of the lanes, of a quarter in each quarter, and so on.
        for (var i = 0u; i < VALUES / 2u; i++) { // unroll in registers
            if SPREAD >= 2u {
                scores[i] = add_half(scores[i], scores[i + VALUES / 2u], SPREAD / 2u, thread);
            }
        }
        for (var i = 0u; i < VALUES / 4u; i++) { // unroll in registers
            if SPREAD >= 4u {
                scores[i] = add_half(scores[i], scores[i + VALUES / 4u], SPREAD / 4u, thread);
            }
        }
        for (var i = 0u; i < VALUES / 8u; i++) { // unroll in registers
            if SPREAD >= 8u {
                scores[i] = add_half(scores[i], scores[i + VALUES / 8u], SPREAD / 8u, thread);
            }
        }
        for (var i = 0u; i < VALUES / 16u; i++) { // unroll in registers
            if SPREAD >= 16u {
                scores[i] = add_half(scores[i], scores[i + VALUES / 16u], SPREAD / 16u, thread);
            }
        }
        for (var i = 0u; i < VALUES / 32u; i++) { // unroll in registers
            if SPREAD >= 32u {
                scores[i] = add_half(scores[i], scores[i + VALUES / 32u], SPREAD / 32u, thread);
            }
        }
        for (var i = 0u; i < OWN; i++) { // unroll in registers
            for (var step = SPREAD; step < LANES; step *= 2u) {
                scores[i] += across(scores[i], step);
            }
            scores[i] = modified(scores[i], params.scale, row_of_scores, walk_key(walk, place_of_key(tile_begin, own_key + i, thread)));
        }

        // Mask.
        let is_full = is_seen_whole(walk, tile_begin);
        if !is_full {
            for (var i = 0u; i < OWN; i++) { // unroll in registers
                let rows = walk_rows(walk, place_of_key(tile_begin, own_key + i, thread));
                let row = tile.first_row + own_row;
                scores[i] = select(MASKED, scores[i], row >= rows.begin && row < rows.end);
            }
        }

        // Online softmax: rescale the sums to the new maximum, and turn scores into weights.
        var new_max = row_max;
        // A NaN score survives in this sum. Otherwise only +infinity meeting -infinity makes the sum NaN, and the row
        // is NaN then as well.
        var total = 0.0;
        for (var i = 0u; i < OWN; i++) { // unroll in registers
            new_max = max(new_max, scores[i]);
            total += scores[i];
        }
        non_finite = non_finite || is_nan(total);
        for (var step = 1u; step < KEYS / OWN; step *= 2u) {
            new_max = max(new_max, across(new_max, step));
        }
        let rescale = max(exp2(row_max - new_max), LEAST_WEIGHT);
        row_max = new_max;
        row_sum *= rescale;
        for (var i = 0u; i < OWN; i++) { // unroll in registers
            // A weight of 0 for masked keys, and for -infinity.
            scores[i] = select(0.0, max(exp2(scores[i] - new_max), LEAST_WEIGHT), scores[i] > MASKED);
            row_sum += scores[i];
        }
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            let factor = of_row(rescale, r, thread);
            for (var c = 0u; c < COLS; c++) { // unroll in registers
                acc[r][c] *= factor;
            }
        }

        // Output of this lane's columns.
        if is_full {
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                for (var r = 0u; r < ROWS; r++) { // unroll in registers
                    let weight = of_lane(scores[i % OWN], (r * KEYS + i) / OWN, thread);
                    for (var c = 0u; c < COLS; c++) { // unroll in registers
                        acc[r][c] = fma(vec4<f32>(weight), widen_part_v(v4[i][c / V_PER_LOAD], c % V_PER_LOAD), acc[r][c]);
                    }
                }
            }
        } else {
            // A masked key may hold NaN or infinity, and 0 * NaN is NaN, so rows that do not see a key must not multiply by it.
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                for (var r = 0u; r < ROWS; r++) { // unroll in registers
                    let weight = of_lane(scores[i % OWN], (r * KEYS + i) / OWN, thread);
                    for (var c = 0u; c < COLS; c++) { // unroll in registers
                        let sum = acc[r][c];
                        let value4 = widen_part_v(v4[i][c / V_PER_LOAD], c % V_PER_LOAD);
                        acc[r][c] = select(sum, fma(vec4<f32>(weight), value4, sum), weight != 0.0);
                    }
                }
            }
        }
        if next < part.end {
            for (var i = 0u; i < KEYS; i++) { // unroll in registers
                let v_at = v_rows.begin + row_of_key(v_rows, walk, next + group, i, keys[i]);
                for (var c = 0u; c < COLS / V_PER_LOAD; c++) { // unroll in registers
                    v4[i][c] = v[(v_at + column_within_v(lane, c * V_PER_LOAD)) / V_PER_LOAD];
                }
            }
        }
    }

    if part.end < walk.end {
        for (var i = 0u; i < CARRIED; i++) { // unroll in registers
            if i == ROWS * COLS {
                carry4(i, vec4<f32>(row_max, row_sum, f32(non_finite), 0.0), tile);
            } else {
                carry4(i, acc[min(i / COLS, ROWS - 1u)][i % COLS], tile);
            }
        }
        return;
    }

    var sum = select(row_sum, NON_FINITE_SUM, non_finite || is_infinity(row_max));
    for (var step = 1u; step < KEYS / OWN; step *= 2u) {
        sum += across(sum, step);
    }
    for (var turn = 0u; turn < ROWS / SUMMED_ROWS; turn++) { // unroll in registers
        if turn > 0u {
            workgroupBarrier(); // orders group_out, group_max and group_sum: the rows before have been read
        }
        for (var i = 0u; i < SUMMED_ROWS; i++) { // unroll in registers
            // Adds up the TOGETHER groups that share a subgroup.
            let own_max = of_row(row_max, turn * SUMMED_ROWS + i, thread);
            let own_sum = of_row(sum, turn * SUMMED_ROWS + i, thread);
            var all_max = own_max;
            for (var step = LANES; step < LANES * TOGETHER; step *= 2u) {
                all_max = max(all_max, across(all_max, step));
            }
            // The sums of a group that saw no key are 0.
            let share = select(max(exp2(own_max - all_max), LEAST_WEIGHT), 1.0, TOGETHER == 1u);
            var all_sum = select(own_sum * share, NON_FINITE_SUM, is_non_finite_sum(own_sum));
            for (var step = LANES; step < LANES * TOGETHER; step *= 2u) {
                all_sum += across(all_sum, step);
            }
            let at = i * JOINED + group / TOGETHER;
            for (var c = 0u; c < COLS; c++) { // unroll in registers
                var all_out = acc[turn * SUMMED_ROWS + i][c] * share;
                for (var step = LANES; step < LANES * TOGETHER; step *= 2u) {
                    all_out += across4(all_out, step);
                }
                if group % TOGETHER == 0u && (COLS * LANES == HEAD_DIM_V4 || column_of_v(lane, c) < HEAD_DIM_V4) {
                    group_out[at * HEAD_DIM_V4 + column_of_v(lane, c)] = all_out;
                }
            }
            if group % TOGETHER == 0u && lane == 0u {
                group_max[at] = all_max;
                group_sum[at] = all_sum;
            }
        }
        workgroupBarrier(); // orders group_out, group_max and group_sum: the other groups' have been written
        store_rows(tile, tile.first_row + turn * SUMMED_ROWS, group * LANES + lane);
    }
}
