// One workgroup takes one head of one token from the projection to attention: heads of q and k are normed (NORM) and rotated by the
// angles of their position, heads of k and v are stored in the cache.
struct HeadParams {
    num_q_heads: u32,
    num_kv_heads: u32,
    head_dim: u32, // a multiple of 4
    num_tokens: u32,
    eps: f32,
}

@group(0) @binding(PARAMS_BINDING) var<uniform>             params: HeadParams;
@group(0) @binding(STATE_BINDING)  var<storage, read>       state: array<u32>;        // [0] tokens so far, [1] position of the first
@group(0) @binding(QKV_BINDING)    var<storage, read>       qkv: array<f32>;          // [token, head of q, k or v, head_dim]
@group(0) @binding(NORMS_BINDING)  var<storage, read>       norms: array<f32>;        // [q or k, head_dim]
@group(0) @binding(ANGLES_BINDING) var<storage, read>       angles: array<vec2<f32>>; // [position, head_dim / 2], cosine and sine
@group(0) @binding(Q_BINDING)      var<storage, read_write> q: array<f32>;            // [token, num_q_heads, head_dim]
@group(0) @binding(K_BINDING)      var<storage, read_write> k: array<f32>;            // [position, num_kv_heads, head_dim]
@group(0) @binding(V_BINDING)      var<storage, read_write> v: array<f32>;            // [position, num_kv_heads, head_dim]

fn write(token: u32, position: u32, head: u32, column: u32, value: f32) {
    let key_head = head - params.num_q_heads;
    if head < params.num_q_heads {
        q[(token * params.num_q_heads + head) * params.head_dim + column] = value;
    } else if key_head < params.num_kv_heads {
        k[(position * params.num_kv_heads + key_head) * params.head_dim + column] = value;
    } else {
        v[(position * params.num_kv_heads + key_head - params.num_kv_heads) * params.head_dim + column] = value;
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn rotate_heads(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let head = workgroup.x;
    let token = workgroup.z * num_workgroups.y + workgroup.y;
    if token >= params.num_tokens {
        return;
    }
    let position = state[1] + token;
    let num_heads = params.num_q_heads + 2u * params.num_kv_heads;
    let start = (token * num_heads + head) * params.head_dim;
    let half_dim = params.head_dim / 2u;
    let is_value = head >= params.num_q_heads + params.num_kv_heads;
    let is_key = head >= params.num_q_heads;

    var factor = 1.0;
    if NORM {
        var sum = 0.0;
        for (var column = lane; column < params.head_dim; column += WORKGROUP_SIZE) {
            sum += qkv[start + column] * qkv[start + column];
        }
        factor = inverseSqrt(sum_lanes(lane, sum) / f32(params.head_dim) + params.eps);
    }
    for (var pair = lane; pair < half_dim; pair += WORKGROUP_SIZE) {
        var x = qkv[start + pair];
        var y = qkv[start + half_dim + pair];
        if !is_value {
            if NORM {
                let weights = select(0u, params.head_dim, is_key);
                x *= factor * norms[weights + pair];
                y *= factor * norms[weights + half_dim + pair];
            }
            let angle = angles[position * half_dim + pair];
            let turned = x * angle.x - y * angle.y;
            y = y * angle.x + x * angle.y;
            x = turned;
        }
        write(token, position, head, pair, x);
        write(token, position, head, half_dim + pair, y);
    }
}
