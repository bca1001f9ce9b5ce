// Family `join`: how the invocations that share a row's parts combine. Here PART_LANES invocations, WORKGROUP_SIZE / PART_LANES apart,
// exchange results through workgroup memory; the first one adds them in order.
var<workgroup> joined_out: array<vec4<f32>, WORKGROUP_SIZE>;
var<workgroup> joined_max: array<f32, WORKGROUP_SIZE>;
var<workgroup> joined_sum: array<f32, WORKGROUP_SIZE>;

fn join_parts(own: Merged, index: u32) -> Merged {
    joined_out[index] = own.out;
    joined_max[index] = own.max_lse;
    joined_sum[index] = own.sum;
    workgroupBarrier(); // orders joined_out, joined_max and joined_sum: the other invocations' have been written

    let items = WORKGROUP_SIZE / PART_LANES;
    let first = index % items;
    var all = Merged(vec4<f32>(), LSE_EMPTY, 0.0);
    for (var at = first; at < WORKGROUP_SIZE; at += items) {
        all.max_lse = max(all.max_lse, joined_max[at]);
    }
    var non_finite = false;
    for (var at = first; at < WORKGROUP_SIZE; at += items) {
        let sum = joined_sum[at];
        non_finite = non_finite || is_non_finite_sum(sum);
        // A lane whose parts saw no key has sums of 0.
        let weight = max(exp(joined_max[at] - all.max_lse), LEAST_WEIGHT);
        all.sum += sum * weight;
        all.out = fma(vec4<f32>(weight), joined_out[at], all.out);
    }
    all.sum = select(all.sum, NON_FINITE_SUM, non_finite);
    return all;
}
