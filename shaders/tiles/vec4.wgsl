// Family `tiles`: the operands and results of a workgroup's matrix products. Here in arrays of vec4, which Vulkan can load matrices from;
// copies are then four elements wide.
const PER_VEC4 = 1u; // elements of the arrays

var<workgroup> tile_a: array<vec4<f16>, TILE_A4>; // [row, column]: queries, weights
var<workgroup> tile_k: array<vec4<f16>, TILE_K4>; // [key, column]
var<workgroup> sums: array<vec4<f32>, TILE_SUMS4>; // [row, key], or columns of out

fn put_a4(at: u32, value: vec4<f16>) {
    tile_a[at] = value;
}

fn a4(at: u32) -> vec4<f16> {
    return tile_a[at];
}

fn put_k4(at: u32, value: vec4<f16>) {
    tile_k[at] = value;
}

fn put_sums4(at: u32, value: vec4<f32>) {
    sums[at] = value;
}

fn sums4(at: u32) -> vec4<f32> {
    return sums[at];
}
