// Family `reduce`: a maximum or a sum over the LANES invocations of a group, for each of several values of a group, in three steps:
// every lane gives its values, they are combined, every lane takes the results. Here a group is a segment of a subgroup, and shuffles
// within it do everything in the first step.

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
