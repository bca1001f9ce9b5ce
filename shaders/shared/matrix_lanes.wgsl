// The scalar work of rows/matrix: lanes fill tiles, mask scores, rescale sums that have left their matrices, and store out.

// Factors on each row's sums where some are rescaled, and at the end parts of the rows' sums.
var<workgroup> row_factors: array<f32, GROUPS * ROWS * PARTS>;
// The last tile, counted from 1, after which sums leave their matrices (MOVING), and in which some value is not finite (NON_FINITE). Drivers
// place an array at the alignment of its elements, but matrices are loaded only from multiples of 16 bytes: so the size of every array of
// workgroup memory is a multiple of 16, and their order does not matter.
var<workgroup> last_tiles: array<atomic<u32>, 4>;
const MOVING = 0u;
const NON_FINITE = 1u;

// By bits: a compiler may assume that numbers are finite.
fn is_non_finite(value: VElem4) -> vec4<bool> {
    return (bitcast<vec4<u32>>(widen_v(value)) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}

// Position in a tile of the i-th vec4 that an invocation loads: key, column. It loads two neighbours at a time, 16 bytes.
fn loaded_at(i: u32, columns: u32, thread: Thread) -> vec2<u32> {
    let pair = thread.index + i / 2u * WORKGROUP_SIZE;
    return vec2<u32>(pair / (columns / 2u), pair % (columns / 2u) * 2u + i % 2u);
}

fn loaded_k4(i: u32, k_rows: KeyRows, walk: Walk, tile_begin: u32, thread: Thread) -> KElem4 {
    let at = loaded_at(i, K_COLUMNS4, thread);
    return k[k_rows.begin + key_row(k_rows, walk_key(walk, tile_begin + at.x)) + min(at.y, HEAD_DIM4 - 1u)];
}

fn loaded_v4(i: u32, v_rows: KeyRows, walk: Walk, tile_begin: u32, thread: Thread) -> VElem4 {
    let at = loaded_at(i, V_COLUMNS4, thread);
    return v[v_rows.begin + key_row(v_rows, walk_key(walk, tile_begin + at.x)) + min(at.y, HEAD_DIM_V4 - 1u)];
}

fn put_loaded_k4(i: u32, loaded: KElem4, thread: Thread) {
    let at = loaded_at(i, K_COLUMNS4, thread);
    if at.x < TILE_KV {
        put_k4(at.x * K_STRIDE4 + at.y, select(vec4<f16>(), factor_k(loaded), at.y < HEAD_DIM4));
    }
}

fn put_loaded_v4(i: u32, loaded: VElem4, thread: Thread) {
    let at = loaded_at(i, V_COLUMNS4, thread);
    if at.x < TILE_KV {
        put_v4(at.x * V_STRIDE4 + at.y, select(vec4<f16>(), factor_v(loaded), at.y < HEAD_DIM_V4));
    }
}

// A masked key's value may be NaN or infinity, and 0 * NaN is NaN: the product gets 0 for it, and rows that see the key get the value
// itself (move_sums4).
fn set_aside_v4(i: u32, loaded: VElem4, number: u32, thread: Thread) {
    let at = loaded_at(i, V_COLUMNS4, thread);
    let non_finite = is_non_finite(loaded);
    if at.x < TILE_KV && at.y < HEAD_DIM_V4 && any(non_finite) {
        atomicMax(&last_tiles[MOVING], number);
        atomicMax(&last_tiles[NON_FINITE], number);
        put_v4(at.x * V_STRIDE4 + at.y, select(factor_v(loaded), vec4<f16>(), non_finite));
    }
}

// Index in sums of the e-th vec4 of a column of matrices: rows of EDGE / 4.
fn sums_at(first_sums: u32, e: u32) -> u32 {
    return first_sums + e / (EDGE / 4u) * SUMS_STRIDE4 + e % (EDGE / 4u);
}

// Four scores of a row, from place `at` of the walk on, or MASKED for keys that the row does not see.
fn seen4(score4: vec4<f32>, row: u32, walk: Walk, at: u32) -> vec4<f32> {
    var seen = score4;
    for (var c = 0u; c < 4u; c++) { // unroll
        let rows = walk_rows(walk, at + c);
        seen[c] = select(MASKED, score4[c], row >= rows.begin && row < rows.end);
    }
    return seen;
}

// Loads portion `chunk` of the queries into the array of the weights.
fn put_queries(chunk: u32, first_a: u32, tile: Tile, lane: u32) {
    for (var e = lane; e < ROWS * TILE_KV / 4u; e += LANES) {
        let row = e / (TILE_KV / 4u);
        let column = chunk * TILE_KV / 4u + e % (TILE_KV / 4u);
        let place = place_of(tile.first_row + row);
        let q4 = factor_q(q[q_index(tile, place) + min(column, HEAD_DIM4 - 1u)], tile, place.head);
        put_a4(first_a + row * A_STRIDE4 + e % (TILE_KV / 4u), select(vec4<f16>(), q4, column < HEAD_DIM4));
    }
}

// Work on a column of matrices between two tiles.
struct Move {
    tile_begin: u32,
    // Some value of the tile is not finite.
    non_finite: bool,
    // The sums so far leave the matrices.
    folds: bool,
}

// Column c of matrices lies in sums: folds it, scales each row by its factor, adds non-finite values to the rows that see them, and
// leaves the new contents of the matrices.
fn move_sums4(c: u32, move_by: Move, tile: Tile, walk: Walk) {
    let lane = lane_of(tile.thread);
    let first = group_of(tile.thread) * ROWS;
    let v_rows = v_rows_of(tile);
    for (var e = lane; e < ROWS * EDGE / 4u; e += LANES) {
        let r = e / (EDGE / 4u);
        let at = sums_at(first * SUMS_STRIDE4, e);
        let own_share = c * CARRIED_EACH + (e - lane) / LANES;
        let factor = row_factors[first + r];
        var sum = sums4(at);
        if move_by.folds {
            fold4(own_share, sum);
            sum = vec4<f32>();
        }
        sum *= factor;
        scale_folded(own_share, factor);
        let column = c * EDGE / 4u + e % (EDGE / 4u);
        if move_by.non_finite && column < HEAD_DIM_V4 {
            for (var key = 0u; key < TILE_KV; key++) {
                let weight = max(f32(a4((first + r) * A_STRIDE4 + key / 4u)[key % 4u]), LEAST_WEIGHT);
                let key_at = walk_key(walk, move_by.tile_begin + key);
                let value = v[v_rows.begin + key_row(v_rows, key_at) + column];
                let added = select(vec4<f32>(), weight * widen_v(value), is_non_finite(value));
                let rows = walk_rows(walk, move_by.tile_begin + key);
                let row = tile.first_row + r;
                let sees = row >= rows.begin && row < rows.end && !is_hidden(tile, row, walk, key_at);
                sum = select(sum, sum + added, sees);
            }
        }
        put_sums4(at, sum);
    }
}

// Column c of matrices lies in sums: stores out, a row's sums divided by the sum of its weights.
fn store_column(c: u32, tile: Tile) {
    let lane = lane_of(tile.thread);
    let first = group_of(tile.thread) * ROWS;
    for (var e = lane; e < ROWS * EDGE / 4u; e += LANES) {
        let r = e / (EDGE / 4u);
        let column = c * EDGE / 4u + e % (EDGE / 4u);
        if tile.first_row + r < tile.end_row && column < HEAD_DIM_V4 {
            let sum = sum_of_row(first + r);
            let value = sums4(sums_at(first * SUMS_STRIDE4, e)) + folded4(c * CARRIED_EACH + (e - lane) / LANES);
            let non_finite = is_non_finite_sum(sum);
            store_out(tile, place_of(tile.first_row + r), column, unscaled4(mean4(value, sum, kept_total(first + r, sum), non_finite), non_finite));
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
