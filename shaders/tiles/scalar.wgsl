// Family `tiles`: the operands and results of a workgroup's matrix products. Here in arrays of scalars, which every back end can load
// matrices from.
const PER_VEC4 = 4u; // elements of the arrays

var<workgroup> tile_a: array<f16, TILE_A4 * 4u>; // [row, column]: queries, weights
var<workgroup> tile_k: array<f16, TILE_K4 * 4u>; // [key, column]
var<workgroup> sums: array<f32, TILE_SUMS4 * 4u>; // [row, key], or columns of out

fn put_a4(at: u32, value: vec4<f16>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        tile_a[at * 4u + i] = value[i];
    }
}

fn a4(at: u32) -> vec4<f16> {
    return vec4<f16>(tile_a[at * 4u], tile_a[at * 4u + 1u], tile_a[at * 4u + 2u], tile_a[at * 4u + 3u]);
}

fn put_k4(at: u32, value: vec4<f16>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        tile_k[at * 4u + i] = value[i];
    }
}

fn put_sums4(at: u32, value: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        sums[at * 4u + i] = value[i];
    }
}

fn sums4(at: u32) -> vec4<f32> {
    return vec4<f32>(sums[at * 4u], sums[at * 4u + 1u], sums[at * 4u + 2u], sums[at * 4u + 3u]);
}
