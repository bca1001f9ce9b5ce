// out = x W^T + bias for one row x: a team of LANES invocations computes each output and reads its row of weights side by side. A large
// matrix is split over several buffers, one dispatch each.
var<workgroup> sums: array<f32, LANES * TEAMS>;

@compute @workgroup_size(LANES * TEAMS)
fn project_token(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let lane = index % LANES;
    let row = (workgroup.y * num_workgroups.x + workgroup.x) * TEAMS + index / LANES;
    var sum = 0.0;
    if row < params.num_rows {
        let start = row * params.cols_vec4;
        for (var column = lane; column < params.cols_vec4; column += LANES) {
            sum += dot(widen(weight[start + column]), x[column]);
        }
    }
    sums[index] = sum;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier(); // orders sums
        if lane < half {
            sums[index] += sums[index + half];
        }
    }
    if lane == 0u && row < params.num_rows {
        let at = params.first_row + row;
        var value = sums[index];
        if params.bias == 1u {
            value += bias[at];
        }
        if params.accumulate == 1u {
            value += out[at];
        }
        out[at] = value;
    }
}
