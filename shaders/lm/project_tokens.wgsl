// out = x W^T + bias for many rows x: a workgroup of 16 x 16 invocations computes a tile of TILE tokens by TILE outputs (TILE is 64), each
// invocation 4 x 4 of them, 16 inputs at a time through workgroup memory.
const DEPTH = 16u;
// One more than a tile, so that the values that one invocation scatters fall into different banks.
const PITCH = TILE + 1u;

var<workgroup> tile_x: array<f32, DEPTH * PITCH>;
var<workgroup> tile_w: array<f32, DEPTH * PITCH>;

@compute @workgroup_size(256)
fn project_tokens(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = (workgroup.z * num_workgroups.x + workgroup.x) * TILE;
    // Each invocation loads four inputs of one token and four of one output, and stores them transposed.
    let quarter = index % 4u;
    let loaded = index / 4u;
    let token = workgroup.y * TILE + loaded;
    let row = first_row + loaded;
    // It computes outputs `right + 16 i` of tokens `down + 16 j`, so that neighbouring invocations write neighbouring outputs.
    let right = index % 16u;
    let down = index / 16u;

    var acc = array<vec4<f32>, 4>();
    for (var first = 0u; first < params.cols_vec4; first += DEPTH / 4u) {
        let column = first + quarter;
        var from_x = vec4<f32>();
        if token < params.num_tokens && column < params.cols_vec4 {
            from_x = x[token * params.cols_vec4 + column];
        }
        var from_w = vec4<f32>();
        if row < params.num_rows && column < params.cols_vec4 {
            from_w = widen(weight[row * params.cols_vec4 + column]);
        }
        workgroupBarrier(); // orders tile_x and tile_w: the previous ones have been read
        for (var i = 0u; i < 4u; i++) {
            tile_x[(quarter * 4u + i) * PITCH + loaded] = from_x[i];
            tile_w[(quarter * 4u + i) * PITCH + loaded] = from_w[i];
        }
        workgroupBarrier(); // orders tile_x and tile_w: the other invocations' have been written
        for (var k = 0u; k < DEPTH; k++) {
            let at = k * PITCH;
            let w = vec4<f32>(
                tile_w[at + right],
                tile_w[at + right + 16u],
                tile_w[at + right + 32u],
                tile_w[at + right + 48u],
            );
            acc[0] = fma(vec4<f32>(tile_x[at + down]), w, acc[0]);
            acc[1] = fma(vec4<f32>(tile_x[at + down + 16u]), w, acc[1]);
            acc[2] = fma(vec4<f32>(tile_x[at + down + 32u]), w, acc[2]);
            acc[3] = fma(vec4<f32>(tile_x[at + down + 48u]), w, acc[3]);
        }
    }

    for (var j = 0u; j < 4u; j++) {
        let to_token = workgroup.y * TILE + down + 16u * j;
        for (var i = 0u; i < 4u; i++) {
            let to_row = first_row + right + 16u * i;
            if to_token < params.num_tokens && to_row < params.num_rows {
                let at = params.first_row + to_row;
                var value = acc[j][i];
                if params.bias == 1u {
                    value += bias[at];
                }
                let to = to_token * params.all_rows + at;
                if params.accumulate == 1u {
                    value += out[to];
                }
                out[to] = value;
            }
        }
    }
}
