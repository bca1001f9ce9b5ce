// The sum over a workgroup, for all its invocations; once a dispatch.
var<workgroup> sums: array<f32, WORKGROUP_SIZE>;

fn sum_lanes(lane: u32, value: f32) -> f32 {
    sums[lane] = value;
    for (var half = WORKGROUP_SIZE / 2u; half > 0u; half /= 2u) {
        workgroupBarrier(); // orders sums
        if lane < half {
            sums[lane] += sums[lane + half];
        }
    }
    workgroupBarrier(); // orders sums
    return sums[0];
}
