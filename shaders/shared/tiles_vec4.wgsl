// Family `tiles`: what a workgroup hands to its matrix products and takes from them. Here in arrays of vec4, which Vulkan
// loads matrices from; copies are then four elements wide.
const PER_VEC4 = 1u; // elements of the arrays

var<workgroup> tile_k: array<vec4<f16>, TILE_KV * K_STRIDE4>;                   // [key, head_dim / 4]
var<workgroup> tile_v: array<vec4<f16>, TILE_KV * V_STRIDE4>;                   // [key, head_dim_v / 4]
var<workgroup> weights: array<vec4<f16>, GROUPS * ROWS * WEIGHTS_STRIDE4>;      // [row, key / 4]
var<workgroup> scores: array<vec4<f32>, GROUPS * ROWS * SCORES_STRIDE4>;        // [row, key / 4], or columns of out

fn put_k4(at: u32, value: vec4<f16>) {
    tile_k[at] = value;
}

fn put_v4(at: u32, value: vec4<f16>) {
    tile_v[at] = value;
}

fn put_weights4(at: u32, value: vec4<f16>) {
    weights[at] = value;
}

fn weights4(at: u32) -> vec4<f16> {
    return weights[at];
}

fn put_scores4(at: u32, value: vec4<f32>) {
    scores[at] = value;
}

fn scores4(at: u32) -> vec4<f32> {
    return scores[at];
}
