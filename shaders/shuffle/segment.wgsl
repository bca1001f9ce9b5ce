// Family `shuffle`: how the LANES invocations of a group exchange values. Here a group is a segment of LANES lanes of a subgroup, whose
// size is not known in advance but is a multiple of LANES. Rows pass from lane to lane within the segment.

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

// The subgroup's invocation that is a lane of this group.
fn invocation_of_lane(lane: u32, thread: Thread) -> u32 {
    return thread.invocation / LANES * LANES + lane;
}

fn from_lane(value: vec4<f32>, lane: u32, thread: Thread) -> vec4<f32> {
    let invocation = invocation_of_lane(lane, thread);
    return vec4<f32>(
        subgroupShuffle(value.x, invocation),
        subgroupShuffle(value.y, invocation),
        subgroupShuffle(value.z, invocation),
        subgroupShuffle(value.w, invocation),
    );
}
