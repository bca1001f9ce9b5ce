// Family `join`: how the invocations that share a row's parts combine. Here PART_LANES invocations, WORKGROUP_SIZE / PART_LANES apart,
// exchange results through workgroup memory; the first one adds them in order.
var<workgroup> joined_out: array<vec4<f32>, WORKGROUP_SIZE>;
var<workgroup> joined_max: array<f32, WORKGROUP_SIZE>;
var<workgroup> joined_sum: array<f32, WORKGROUP_SIZE>;

fn join_parts(own: Merged, index: u32) -> Merged {
    joined_max[index] = own.max_lse;
    workgroupBarrier(); // orders joined_max: the other invocations' have been written

    let items = WORKGROUP_SIZE / PART_LANES;
    let first = index % items;
    var all = Merged(vec4<f32>(), LSE_EMPTY, 0.0);
    for (var at = first; at < WORKGROUP_SIZE; at += items) {
        all.max_lse = max(all.max_lse, joined_max[at]);
    }
    // A lane whose parts saw no key has sums of 0.
    let weight = max(exp(own.max_lse - all.max_lse), LEAST_WEIGHT);
    joined_out[index] = own.out * weight;
    joined_sum[index] = select(own.sum * weight, NON_FINITE_SUM, is_non_finite_sum(own.sum));
    workgroupBarrier(); // orders joined_out and joined_sum: the other invocations' have been written

    if index < items {
        var non_finite = false;
        for (var at = first; at < WORKGROUP_SIZE; at += items) {
            non_finite = non_finite || is_non_finite_sum(joined_sum[at]);
            all.sum += joined_sum[at];
            all.out += joined_out[at];
        }
        all.sum = select(all.sum, NON_FINITE_SUM, non_finite);
    }
    return all;
}
