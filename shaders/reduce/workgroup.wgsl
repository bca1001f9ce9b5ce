// Family `reduce`: a maximum or a sum over the LANES invocations of a group, for each of REDUCED values of a group, in three steps:
// every lane gives its values, they are combined, every lane takes the results. Here through workgroup memory.

var<workgroup> reduce_lanes: array<f32, GROUPS * REDUCED * REDUCE_STRIDE>;
var<workgroup> reduced: array<f32, GROUPS * REDUCED>;

// The arrays are written again only after another barrier: after a maximum the two around `weights`, after a sum the second of join_sum.
fn give_max(value: f32, r: u32, thread: Thread) -> f32 {
    reduce_lanes[(group_of(thread) * REDUCED + r) * REDUCE_STRIDE + lane_of(thread)] = value;
    return value;
}

// No barrier at the end: the rows pass the barrier of `weights` before they take the results.
fn join_max(thread: Thread) {
    let first = group_of(thread) * REDUCED;
    workgroupBarrier(); // orders reduce_lanes
    for (var r = lane_of(thread); r < REDUCED; r += LANES) {
        var value = reduce_lanes[(first + r) * REDUCE_STRIDE];
        for (var other = 1u; other < LANES; other++) {
            value = max(value, reduce_lanes[(first + r) * REDUCE_STRIDE + other]);
        }
        reduced[first + r] = value;
    }
}

fn give_sum(value: f32, r: u32, thread: Thread) -> f32 {
    return give_max(value, r, thread);
}

fn join_sum(thread: Thread) {
    let first = group_of(thread) * REDUCED;
    workgroupBarrier(); // orders reduce_lanes
    for (var r = lane_of(thread); r < REDUCED; r += LANES) {
        var value = 0.0;
        for (var other = 0u; other < LANES; other++) {
            value += reduce_lanes[(first + r) * REDUCE_STRIDE + other];
        }
        reduced[first + r] = value;
    }
    workgroupBarrier(); // orders reduced
}

fn take(given: f32, r: u32, thread: Thread) -> f32 {
    return reduced[group_of(thread) * REDUCED + r];
}
