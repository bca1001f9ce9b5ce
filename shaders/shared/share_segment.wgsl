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

// A reduction over the lanes of a group, of one value for each row, in three steps: every lane gives its values, all
// come together, every lane takes the results. Subgroup operations do it all in the first.
fn give_max(value: f32, r: u32, thread: Thread) -> f32 {
    var result = value;
    for (var step = 1u; step < LANES; step *= 2u) {
        result = max(result, subgroupShuffleXor(result, step));
    }
    return result;
}

fn join_max(thread: Thread) {}

fn give_sum(value: f32, r: u32, thread: Thread) -> f32 {
    var result = value;
    for (var step = 1u; step < LANES; step *= 2u) {
        result += subgroupShuffleXor(result, step);
    }
    return result;
}

fn join_sum(thread: Thread) {}

fn take(given: f32, r: u32, thread: Thread) -> f32 {
    return given;
}
