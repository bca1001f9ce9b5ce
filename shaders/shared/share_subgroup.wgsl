// Family `share`: a group is one whole subgroup. Every lane loads another row, and the rows pass from lane to lane.

struct Thread {
    @builtin(subgroup_id) group: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

fn group_of(thread: Thread) -> u32 {
    return thread.group;
}

fn lane_of(thread: Thread) -> u32 {
    return thread.lane;
}

fn from_lane(value: vec4<f32>, lane: u32) -> vec4<f32> {
    return vec4<f32>(
        subgroupShuffle(value.x, lane),
        subgroupShuffle(value.y, lane),
        subgroupShuffle(value.z, lane),
        subgroupShuffle(value.w, lane),
    );
}

// Where the q rows lie that this lane reads: one of every SHARE.
alias QRows = array<u32, SLOTS>;

fn locate_q(rows: ptr<function, QRows>, tile: Tile) {
    for (var slot = 0u; slot < SLOTS; slot++) { // unroll
        (*rows)[slot] = q_index(tile, place_of(tile.first_row + slot * SHARE + lane_of(tile.thread) % SHARE));
    }
}

// Four elements of q from row `slot * SHARE + t`, in two steps: what the lane loads, and what a row takes from it.
fn load_q(rows: ptr<function, QRows>, slot: u32, d4: u32, thread: Thread) -> vec4<f32> {
    return widen(q[(*rows)[slot] + d4]);
}

fn share_q(loaded: vec4<f32>, rows: ptr<function, QRows>, slot: u32, t: u32, thread: Thread) -> vec4<f32> {
    return from_lane(loaded, t);
}

// The weights of four keys in row `slot * SHARE + t`, in the same two steps.
fn load_weights(slot: u32, key4: u32, thread: Thread) -> vec4<f32> {
    let row = group_of(thread) * ROWS + slot * SHARE + lane_of(thread) % SHARE;
    return weights[row * WEIGHTS_STRIDE + key4];
}

fn share_weights(loaded: vec4<f32>, slot: u32, t: u32, thread: Thread) -> vec4<f32> {
    return from_lane(loaded, t);
}

// Every lane brings one value a row and gets the maximum over the lanes of its group.
fn group_max(values: ptr<function, array<f32, ROWS>>, thread: Thread) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        (*values)[r] = subgroupMax((*values)[r]);
    }
}

// The same for the sum.
fn group_sum(values: ptr<function, array<f32, ROWS>>, thread: Thread) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        (*values)[r] = subgroupAdd((*values)[r]);
    }
}
