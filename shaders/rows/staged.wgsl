// Family `rows`: the groups of a workgroup attend ROWS query rows each to one range of keys, tile by tile, with an online softmax in base
// 2 (FlashAttention-2, algorithm 1). For many rows: the workgroup stages in its memory what all groups read, a few columns of keys and
// queries at a time, then a few values. Neighbours load neighbouring memory, and the next slice is in flight during the computation on
// this one. A lane has ROWS x KEYS scores and ROWS x COLS vec4 of out in registers, and multiplies each vec4 that it reads by KEYS, ROWS
// or COLS others.
//
// The kernel's own file stores the result: store_out(tile, place, column, value) and store_lse(tile, place, lse).

// Holds either SLICE4 columns of the tile's keys, and from STAGED_Q on of the queries; or the weights of 4 * LANES keys, and from
// STAGED_V on SLICE_KEYS values. Widened once, and read by all groups.
var<workgroup> staged: array<vec4<f32>, STAGED4>;

// Each group has rows of its own.
fn first_row_of(rows: RowTile, thread: Thread) -> u32 {
    return rows.begin + group_of(thread) * ROWS;
}

fn column_of(thread: Thread, c: u32) -> u32 {
    return min(lane_of(thread) + c * LANES, HEAD_DIM_V4 - 1u);
}

fn invocation_of(thread: Thread) -> u32 {
    return group_of(thread) * LANES + lane_of(thread);
}

// A lane takes four consecutive keys out of every 4 * LANES.
fn key_of(lane: u32, c: u32) -> u32 {
    return c / 4u * (4u * LANES) + lane * 4u + c % 4u;
}

// Lanes read one column of LANES keys at a time. Keys lie in that order, without gaps. Their columns are swizzled so that eight lanes
// that read a column use different banks, and so do eight invocations that write neighbouring elements.
fn swizzle_of(lane: u32) -> u32 {
    return lane * SWIZZLE / 8u % SWIZZLE;
}

// Every group of a workgroup must be given the same `walk`, since this function has barriers.
fn attend_rows(tile: Tile, walk: Walk) {
    let part = part_of(walk);
    if part.is_over {
        return;
    }
    let thread = tile.thread;
    let lane = lane_of(thread);
    let invocation = invocation_of(thread);
    let swizzle = swizzle_of(lane);
    let staged_queries = STAGED_Q + group_of(thread) * ROWS * SLICE4;
    let staged_weights = group_of(thread) * ROWS * LANES;
    let k_rows = k_rows_of(tile);
    let v_rows = v_rows_of(tile);
    // The rows that this invocation stages.
    var q_at: array<u32, Q_EACH>;
    for (var i = 0u; i < Q_EACH; i++) { // unroll in registers
        let row = min((i * WORKGROUP_SIZE + invocation) / SLICE4, TILE_Q - 1u);
        q_at[i] = q_index(tile, place_of(tile.first_row - group_of(thread) * ROWS + row));
    }

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
        gather_slots(walk, k_rows, tile_begin, thread);
        var k_at: array<u32, K_EACH>;
        for (var i = 0u; i < K_EACH; i++) { // unroll in registers
            let place = min((i * WORKGROUP_SIZE + invocation) / SLICE4, TILE_KV - 1u);
            let slot = gathered_slot_in_range(walk, k_rows, tile_begin, key_of(place % LANES, place / LANES), thread);
            k_at[i] = k_rows.begin + slot_row(k_rows, slot);
        }
        // Loads in flight: the next slice of queries and keys, then the first values.
        var q_ahead: array<QElem4, Q_EACH>;
        var k_ahead: array<KElem4, K_EACH>;
        var v_ahead: array<VElem4, V_EACH>;

        // Scores of this lane's keys.
        var scores: array<array<f32, KEYS>, ROWS>;
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            for (var c = 0u; c < KEYS; c++) { // unroll in registers
                scores[r][c] = 0.0;
            }
        }
        for (var slice = 0u; slice <= SLICES; slice++) {
            if slice > 0u {
                workgroupBarrier(); // orders staged: what it held has been read
                for (var i = 0u; i < K_EACH; i++) { // unroll in registers
                    let at = i * WORKGROUP_SIZE + invocation;
                    // The first condition is constant.
                    if (i + 1u) * WORKGROUP_SIZE <= TILE_KV * SLICE4 || at < TILE_KV * SLICE4 {
                        let place = at / SLICE4;
                        staged[place * SLICE4 + ((at % SLICE4) ^ swizzle_of(place % LANES))] = widen_k(k_ahead[i]);
                    }
                }
                for (var i = 0u; i < Q_EACH; i++) { // unroll in registers
                    let at = i * WORKGROUP_SIZE + invocation;
                    if (i + 1u) * WORKGROUP_SIZE <= TILE_Q * SLICE4 || at < TILE_Q * SLICE4 {
                        staged[STAGED_Q + at] = widen_q(q_ahead[i]);
                    }
                }
                workgroupBarrier(); // orders staged: keys and queries have been written
            }
            if slice < SLICES {
                for (var i = 0u; i < K_EACH; i++) { // unroll in registers
                    let column = slice * SLICE4 + (i * WORKGROUP_SIZE + invocation) % SLICE4;
                    k_ahead[i] = k[k_at[i] + min(column, HEAD_DIM4 - 1u)];
                }
                for (var i = 0u; i < Q_EACH; i++) { // unroll in registers
                    let column = slice * SLICE4 + (i * WORKGROUP_SIZE + invocation) % SLICE4;
                    q_ahead[i] = q[q_at[i] + min(column, HEAD_DIM4 - 1u)];
                }
            } else {
                for (var i = 0u; i < V_EACH; i++) { // unroll in registers
                    let at = i * WORKGROUP_SIZE + invocation;
                    let row = min(at / HEAD_DIM_V4, SLICE_KEYS - 1u);
                    let slot = gathered_slot_in_range(walk, v_rows, tile_begin, row, thread);
                    v_ahead[i] = v[v_rows.begin + slot_row(v_rows, slot) + at % HEAD_DIM_V4];
                }
            }
            if slice > 0u {
                // A constant where slices divide the width.
                let left = HEAD_DIM4 - (slice - 1u) * SLICE4;
                let columns = select(SLICE4, min(left, SLICE4), HEAD_DIM4 % SLICE4 != 0u);
                for (var d4 = 0u; d4 < columns; d4++) {
                    let k_column = lane * SLICE4 + (d4 ^ swizzle);
                    var k4: array<vec4<f32>, KEYS>;
                    for (var c = 0u; c < KEYS; c++) { // unroll in registers
                        k4[c] = staged[k_column + c * LANES * SLICE4];
                    }
                    for (var r = 0u; r < ROWS; r++) { // unroll in registers
                        let q4 = staged[staged_queries + r * SLICE4 + d4];
                        for (var c = 0u; c < KEYS; c++) { // unroll in registers
                            scores[r][c] = fma(q4.x, k4[c].x, fma(q4.y, k4[c].y,
                                fma(q4.z, k4[c].z, fma(q4.w, k4[c].w, scores[r][c]))));
                        }
                    }
                }
            }
        }

        // Modifiers, then the mask. `is_full` may or may not be uniform in the workgroup; no barrier depends on it.
        let is_full = is_seen_whole(walk, tile_begin);
        for (var c = 0u; c < KEYS; c++) { // unroll in registers
            let key = walk_key(walk, tile_begin + key_of(lane, c));
            for (var r = 0u; r < ROWS; r++) { // unroll in registers
                scores[r][c] = modified(scores[r][c], params.scale, score_rows[r], key);
            }
        }
        if !is_full {
            for (var c = 0u; c < KEYS; c++) { // unroll in registers
                let rows = walk_rows(walk, tile_begin + key_of(lane, c));
                for (var r = 0u; r < ROWS; r++) { // unroll in registers
                    let row = tile.first_row + r;
                    let sees = row >= rows.begin && row < rows.end;
                    scores[r][c] = select(MASKED, scores[r][c], sees);
                }
            }
        }

        // Online softmax: rescale the sums to the new maximum; weights replace scores.
        var tile_max: array<f32, ROWS>;
        for (var r = 0u; r < ROWS; r++) { // unroll in registers
            tile_max[r] = scores[r][0];
            for (var c = 1u; c < KEYS; c++) { // unroll in registers
                tile_max[r] = max(tile_max[r], scores[r][c]);
            }
            tile_max[r] = give_max(tile_max[r], r, thread);
        }
        join_max(thread);
        workgroupBarrier(); // orders staged, whose keys and queries have been read, and what join_max writes
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
                scores[r][c4 * 4u] = weight4.x;
                scores[r][c4 * 4u + 1u] = weight4.y;
                scores[r][c4 * 4u + 2u] = weight4.z;
                scores[r][c4 * 4u + 3u] = weight4.w;
            }
        }

        // Output of this lane's columns.
        for (var step = 0u; step < STEPS; step++) {
            if step > 0u {
                workgroupBarrier(); // orders staged: weights and values have been read
            }
            for (var c4 = 0u; c4 < KEYS / 4u; c4++) { // unroll in registers
                if step == c4 * WEIGHTS_STEPS {
                    for (var r = 0u; r < ROWS; r++) { // unroll in registers
                        staged[staged_weights + r * LANES + lane] = vec4<f32>(
                            scores[r][c4 * 4u], scores[r][c4 * 4u + 1u], scores[r][c4 * 4u + 2u], scores[r][c4 * 4u + 3u]);
                    }
                }
            }
            for (var i = 0u; i < V_EACH; i++) { // unroll in registers
                let at = i * WORKGROUP_SIZE + invocation;
                if (i + 1u) * WORKGROUP_SIZE <= SLICE_KEYS * HEAD_DIM_V4 || at < SLICE_KEYS * HEAD_DIM_V4 {
                    staged[STAGED_V + at] = widen_v(v_ahead[i]);
                }
            }
            workgroupBarrier(); // orders staged: weights and values have been written
            if step + 1u < STEPS {
                for (var i = 0u; i < V_EACH; i++) { // unroll in registers
                    let at = i * WORKGROUP_SIZE + invocation;
                    let row = (step + 1u) * SLICE_KEYS + min(at / HEAD_DIM_V4, SLICE_KEYS - 1u);
                    let slot = gathered_slot_in_range(walk, v_rows, tile_begin, row, thread);
                    v_ahead[i] = v[v_rows.begin + slot_row(v_rows, slot) + at % HEAD_DIM_V4];
                }
            }
            let weights_at = staged_weights + step % WEIGHTS_STEPS * (SLICE_KEYS / 4u);
            if is_full {
                for (var key4 = 0u; key4 < SLICE_KEYS / 4u; key4++) {
                    var v4: array<array<vec4<f32>, COLS>, 4>;
                    for (var i = 0u; i < 4u; i++) { // unroll in registers
                        for (var c = 0u; c < COLS; c++) { // unroll in registers
                            v4[i][c] = staged[STAGED_V + (key4 * 4u + i) * HEAD_DIM_V4 + column_of(thread, c)];
                        }
                    }
                    for (var r = 0u; r < ROWS; r++) { // unroll in registers
                        let w = staged[weights_at + r * LANES + key4];
                        for (var c = 0u; c < COLS; c++) { // unroll in registers
                            acc[r][c] = fma(vec4<f32>(w.x), v4[0][c], fma(vec4<f32>(w.y), v4[1][c],
                                fma(vec4<f32>(w.z), v4[2][c], fma(vec4<f32>(w.w), v4[3][c], acc[r][c]))));
                        }
                    }
                }
            } else {
                // A masked key may hold NaN or infinity, and 0 * NaN is NaN, so rows that do not see a key must not multiply by it.
                for (var key4 = 0u; key4 < SLICE_KEYS / 4u; key4++) {
                    var v4: array<array<vec4<f32>, COLS>, 4>;
                    for (var i = 0u; i < 4u; i++) { // unroll in registers
                        for (var c = 0u; c < COLS; c++) { // unroll in registers
                            v4[i][c] = staged[STAGED_V + (key4 * 4u + i) * HEAD_DIM_V4 + column_of(thread, c)];
                        }
                    }
                    for (var r = 0u; r < ROWS; r++) { // unroll in registers
                        let w = staged[weights_at + r * LANES + key4];
                        for (var i = 0u; i < 4u; i++) { // unroll in registers
                            for (var c = 0u; c < COLS; c++) { // unroll in registers
                                let sum = acc[r][c];
                                acc[r][c] = select(sum, fma(vec4<f32>(w[i]), v4[i][c], sum), w[i] != 0.0);
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
                let non_finite = f32((non_finite_rows >> (i / (COLS + 1u))) & 1u);
                carry4(i, vec4<f32>(row_max[i / (COLS + 1u)], row_sum[i / (COLS + 1u)], non_finite, 0.0), tile);
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
