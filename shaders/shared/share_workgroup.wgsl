// Family `share`: what the LANES invocations of a group tell one another. Here without subgroup operations: a lane
// reads its siblings' rows from memory itself, and reductions go through workgroup memory.

struct Thread {
    @builtin(local_invocation_index) index: u32,
}

fn group_of(thread: Thread) -> u32 {
    return thread.index / LANES;
}

fn lane_of(thread: Thread) -> u32 {
    return thread.index % LANES;
}

// Where the q rows lie that this lane reads: all of them.
alias QRows = array<u32, ROWS>;

fn locate_q(rows: ptr<function, QRows>, tile: Tile) {
    var place = place_of(tile.first_row);
    for (var r = 0u; r < ROWS; r++) { // unroll
        (*rows)[r] = q_index(tile, place);
        place = next_place(place);
    }
}

// Four elements of q from row `slot * SHARE + t`, in two steps: what the lane loads, and what a row takes from it.
fn load_q(rows: ptr<function, QRows>, slot: u32, d4: u32, thread: Thread) -> u32 {
    return d4;
}

fn share_q(loaded: u32, rows: ptr<function, QRows>, slot: u32, t: u32, thread: Thread) -> vec4<f32> {
    return widen(q[(*rows)[slot * SHARE + t] + loaded]);
}

// The weights of four keys in row `slot * SHARE + t`, in the same two steps.
fn load_weights(slot: u32, key4: u32, thread: Thread) -> u32 {
    return group_of(thread) * ROWS * WEIGHTS_STRIDE + key4;
}

fn share_weights(loaded: u32, slot: u32, t: u32, thread: Thread) -> vec4<f32> {
    return weights[loaded + (slot * SHARE + t) * WEIGHTS_STRIDE];
}

var<workgroup> reduce_lanes: array<f32, GROUPS * ROWS * LANES>;
var<workgroup> reduce_rows: array<f32, GROUPS * ROWS>;

// Every lane brings one value a row and gets the maximum over the lanes of its group. No barrier closes it: the arrays
// are written again only past the barriers around `weights`.
fn group_max(values: ptr<function, array<f32, ROWS>>, thread: Thread) {
    let first_row = group_of(thread) * ROWS;
    for (var r = 0u; r < ROWS; r++) { // unroll
        reduce_lanes[(first_row + r) * LANES + lane_of(thread)] = (*values)[r];
    }
    workgroupBarrier(); // orders reduce_lanes
    for (var r = lane_of(thread); r < ROWS; r += LANES) {
        var value = reduce_lanes[(first_row + r) * LANES];
        for (var other = 1u; other < LANES; other++) {
            value = max(value, reduce_lanes[(first_row + r) * LANES + other]);
        }
        reduce_rows[first_row + r] = value;
    }
    workgroupBarrier(); // orders reduce_rows
    for (var r = 0u; r < ROWS; r++) { // unroll
        (*values)[r] = reduce_rows[first_row + r];
    }
}

// The same for the sum.
fn group_sum(values: ptr<function, array<f32, ROWS>>, thread: Thread) {
    let first_row = group_of(thread) * ROWS;
    for (var r = 0u; r < ROWS; r++) { // unroll
        reduce_lanes[(first_row + r) * LANES + lane_of(thread)] = (*values)[r];
    }
    workgroupBarrier(); // orders reduce_lanes
    for (var r = lane_of(thread); r < ROWS; r += LANES) {
        var value = 0.0;
        for (var other = 0u; other < LANES; other++) {
            value += reduce_lanes[(first_row + r) * LANES + other];
        }
        reduce_rows[first_row + r] = value;
    }
    workgroupBarrier(); // orders reduce_rows
    for (var r = 0u; r < ROWS; r++) { // unroll
        (*values)[r] = reduce_rows[first_row + r];
    }
}
