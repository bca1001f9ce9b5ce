// Family `shuffle`: how the LANES invocations of a group exchange values. Here without subgroup operations: every lane loads every row
// itself (SHARE is 1).

struct Thread {
    @builtin(local_invocation_index) index: u32,
}

fn group_of(thread: Thread) -> u32 {
    return thread.index / LANES;
}

fn lane_of(thread: Thread) -> u32 {
    return thread.index % LANES;
}

// Without subgroups nobody asks.
fn invocation_of_lane(lane: u32, thread: Thread) -> u32 {
    return lane;
}

fn from_lane(value: vec4<f32>, lane: u32, thread: Thread) -> vec4<f32> {
    return value;
}
