// One invocation gates four columns of one token: silu(gate) * up.
struct GateParams {
    num_tokens: u32,
    size_vec4: u32, // columns / 4 of the gate, and of what it gates
}

@group(0) @binding(PARAMS_BINDING)  var<uniform>             params: GateParams;
@group(0) @binding(GATE_UP_BINDING) var<storage, read>       gate_up: array<vec4<f32>>; // [num_tokens, gate or up, size / 4]
@group(0) @binding(OUT_BINDING)     var<storage, read_write> out: array<vec4<f32>>;     // [num_tokens, size / 4]

@compute @workgroup_size(WORKGROUP_SIZE)
fn gate_mlp(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let item = (workgroup.y * num_workgroups.x + workgroup.x) * WORKGROUP_SIZE + index;
    let token = item / params.size_vec4;
    if token >= params.num_tokens {
        return;
    }
    let at = token * 2u * params.size_vec4 + item % params.size_vec4;
    let gate = gate_up[at];
    // Below -88 exp would overflow; the gate is closed.
    let is_closed = gate < vec4<f32>(-88.0);
    let silu = gate / (1.0 + exp(-select(gate, vec4<f32>(), is_closed)));
    out[item] = select(silu, vec4<f32>(), is_closed) * gate_up[at + params.size_vec4];
}
