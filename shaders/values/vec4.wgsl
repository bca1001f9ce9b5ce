// Family `values`: the values of a tile. Here in an array of vec4.
var<workgroup> tile_v: array<vec4<f16>, TILE_V4>; // [key, column]

fn put_v4(at: u32, value: vec4<f16>) {
    tile_v[at] = value;
}
