// Family `shuffle`: how the LANES invocations of a group exchange values. Here a group is a subgroup: each lane loads one row for all.

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

// The subgroup's invocation that is a lane of this group.
fn invocation_of_lane(lane: u32, thread: Thread) -> u32 {
    return lane;
}

fn from_lane(value: vec4<f32>, lane: u32, thread: Thread) -> vec4<f32> {
    return vec4<f32>(
        subgroupShuffle(value.x, lane),
        subgroupShuffle(value.y, lane),
        subgroupShuffle(value.z, lane),
        subgroupShuffle(value.w, lane),
    );
}
