// Family `values`: the values of a tile. Here in an array of scalars.
var<workgroup> tile_v: array<f16, TILE_V4 * 4u>; // [key, column]

fn put_v4(at: u32, value: vec4<f16>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        tile_v[at * 4u + i] = value[i];
    }
}
