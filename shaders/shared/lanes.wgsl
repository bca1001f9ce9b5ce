// What the lanes of a group tell each other by shuffles, number by number.

// The value of the lane whose number differs in the bit `step`.
fn across(value: f32, step: u32) -> f32 {
    return subgroupShuffleXor(value, step);
}

fn across4(value: vec4<f32>, step: u32) -> vec4<f32> {
    return vec4<f32>(across(value.x, step), across(value.y, step), across(value.z, step), across(value.w, step));
}

fn of_lane(value: f32, lane: u32, thread: Thread) -> f32 {
    return subgroupShuffle(value, invocation_of_lane(lane, thread));
}

// Half of a sum of two lanes' values: of `low` in the lane whose bit `step` is 0, of `high` in the other.
fn add_half(low: f32, high: f32, step: u32, thread: Thread) -> f32 {
    let is_high = (lane_of(thread) & step) != 0u;
    return select(low, high, is_high) + across(select(high, low, is_high), step);
}
