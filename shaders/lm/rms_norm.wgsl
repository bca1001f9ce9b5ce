// One workgroup norms one row: x / sqrt(mean(x^2) + eps) * weight.
struct NormParams {
    width_vec4: u32, // columns / 4
    first_row: u32,  // row of x that becomes row 0 of out
    num_rows: u32,   // of out
    eps: f32,
    scale: f32,      // 1 / columns
}

@group(0) @binding(PARAMS_BINDING) var<uniform>             params: NormParams;
@group(0) @binding(X_BINDING)      var<storage, read>       x: array<vec4<f32>>;
@group(0) @binding(WEIGHT_BINDING) var<storage, read>       weight: array<vec4<f32>>;
@group(0) @binding(OUT_BINDING)    var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn rms_norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = workgroup.y * num_workgroups.x + workgroup.x;
    if row >= params.num_rows {
        return;
    }
    let start = (params.first_row + row) * params.width_vec4;
    let to = row * params.width_vec4;
    var sum = 0.0;
    for (var column = lane; column < params.width_vec4; column += WORKGROUP_SIZE) {
        sum += dot(x[start + column], x[start + column]);
    }
    let factor = inverseSqrt(sum_lanes(lane, sum) * params.scale + params.eps);
    for (var column = lane; column < params.width_vec4; column += WORKGROUP_SIZE) {
        out[to + column] = x[start + column] * factor * weight[column];
    }
}
