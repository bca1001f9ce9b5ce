// Family `share`: a group is a segment of LANES lanes of a subgroup whose size is not known beforehand, but is a
// multiple of LANES. Rows pass from lane to lane within the segment.

struct Thread {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
}

fn group_of(thread: Thread) -> u32 {
    return thread.subgroup * (thread.subgroup_size / LANES) + thread.invocation / LANES;
}

fn lane_of(thread: Thread) -> u32 {
    return thread.invocation % LANES;
}

fn from_lane(value: vec4<f32>, lane: u32, thread: Thread) -> vec4<f32> {
    let invocation = thread.invocation / LANES * LANES + lane;
    return vec4<f32>(
        subgroupShuffle(value.x, invocation),
        subgroupShuffle(value.y, invocation),
        subgroupShuffle(value.z, invocation),
        subgroupShuffle(value.w, invocation),
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
    return from_lane(loaded, t, thread);
}

// The weights of four keys in row `slot * SHARE + t`, in the same two steps.
fn load_weights(slot: u32, key4: u32, thread: Thread) -> vec4<f32> {
    let row = group_of(thread) * ROWS + slot * SHARE + lane_of(thread) % SHARE;
    return weights[row * WEIGHTS_STRIDE + key4];
}

fn share_weights(loaded: vec4<f32>, slot: u32, t: u32, thread: Thread) -> vec4<f32> {
    return from_lane(loaded, t, thread);
}

// Every lane brings one value a row and gets the maximum over the lanes of its group: a butterfly within the segment.
fn group_max(values: ptr<function, array<f32, ROWS>>, thread: Thread) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        var value = (*values)[r];
        for (var step = 1u; step < LANES; step *= 2u) {
            value = max(value, subgroupShuffleXor(value, step));
        }
        (*values)[r] = value;
    }
}

// The same for the sum.
fn group_sum(values: ptr<function, array<f32, ROWS>>, thread: Thread) {
    for (var r = 0u; r < ROWS; r++) { // unroll
        var value = (*values)[r];
        for (var step = 1u; step < LANES; step *= 2u) {
            value += subgroupShuffleXor(value, step);
        }
        (*values)[r] = value;
    }
}
