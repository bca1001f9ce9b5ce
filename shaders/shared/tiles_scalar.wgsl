// Family `tiles`: what a workgroup hands to its matrix products and takes from them. Here in arrays of scalars, the only
// ones that every back end loads matrices from.
const PER_VEC4 = 4u; // elements of the arrays

var<workgroup> tile_k: array<f16, TILE_KV * K_STRIDE4 * 4u>;                    // [key, head_dim]
var<workgroup> tile_v: array<f16, TILE_KV * V_STRIDE4 * 4u>;                    // [key, head_dim_v]
var<workgroup> weights: array<f16, GROUPS * ROWS * WEIGHTS_STRIDE4 * 4u>;       // [row, key]
var<workgroup> scores: array<f32, GROUPS * ROWS * SCORES_STRIDE4 * 4u>;         // [row, key], or columns of out

fn put_k4(at: u32, value: vec4<f16>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        tile_k[at * 4u + i] = value[i];
    }
}

fn put_v4(at: u32, value: vec4<f16>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        tile_v[at * 4u + i] = value[i];
    }
}

fn put_weights4(at: u32, value: vec4<f16>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        weights[at * 4u + i] = value[i];
    }
}

fn weights4(at: u32) -> vec4<f16> {
    return vec4<f16>(weights[at * 4u], weights[at * 4u + 1u], weights[at * 4u + 2u], weights[at * 4u + 3u]);
}

fn put_scores4(at: u32, value: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        scores[at * 4u + i] = value[i];
    }
}

fn scores4(at: u32) -> vec4<f32> {
    return vec4<f32>(scores[at * 4u], scores[at * 4u + 1u], scores[at * 4u + 2u], scores[at * 4u + 3u]);
}
