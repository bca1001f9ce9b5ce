// Family `reduce`: a maximum or a sum over the LANES invocations of a group, for each of several values of a group, in three steps:
// every lane gives its values, they are combined, every lane takes the results. Here a group is a whole subgroup, and subgroup
// operations do everything in the first step.

fn give_max(value: f32, r: u32, thread: Thread) -> f32 {
    return subgroupMax(value);
}

fn join_max(thread: Thread) {}

fn give_sum(value: f32, r: u32, thread: Thread) -> f32 {
    return subgroupAdd(value);
}

fn join_sum(thread: Thread) {}

fn take(given: f32, r: u32, thread: Thread) -> f32 {
    return given;
}
