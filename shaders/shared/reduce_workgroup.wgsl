// Family `reduce`: a maximum or a sum over the LANES invocations of a group, for one value of each row, in three steps:
// every lane gives its values, all come together, every lane takes the results. Here through workgroup memory.

var<workgroup> reduce_lanes: array<f32, GROUPS * ROWS * LANES>;
var<workgroup> reduce_rows: array<f32, GROUPS * ROWS>;

// The arrays are written again only past the barriers around `weights`.
fn give_max(value: f32, r: u32, thread: Thread) -> f32 {
    reduce_lanes[(group_of(thread) * ROWS + r) * LANES + lane_of(thread)] = value;
    return value;
}

// No barrier at the end: the rows pass one, that of `weights`, before they take the results.
fn join_max(thread: Thread) {
    let first_row = group_of(thread) * ROWS;
    workgroupBarrier(); // orders reduce_lanes
    for (var r = lane_of(thread); r < ROWS; r += LANES) {
        var value = reduce_lanes[(first_row + r) * LANES];
        for (var other = 1u; other < LANES; other++) {
            value = max(value, reduce_lanes[(first_row + r) * LANES + other]);
        }
        reduce_rows[first_row + r] = value;
    }
}

fn give_sum(value: f32, r: u32, thread: Thread) -> f32 {
    return give_max(value, r, thread);
}

fn join_sum(thread: Thread) {
    let first_row = group_of(thread) * ROWS;
    workgroupBarrier(); // orders reduce_lanes
    for (var r = lane_of(thread); r < ROWS; r += LANES) {
        var value = 0.0;
        for (var other = 0u; other < LANES; other++) {
            value += reduce_lanes[(first_row + r) * LANES + other];
        }
        reduce_rows[first_row + r] = value;
    }
    workgroupBarrier(); // orders reduce_rows
}

fn take(given: f32, r: u32, thread: Thread) -> f32 {
    return reduce_rows[group_of(thread) * ROWS + r];
}
