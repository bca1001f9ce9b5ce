// One workgroup attends TILE_Q query rows of one KV head to one split of their walk, and leaves a partial
// (out, lse) that merge_splits combines. Meant for few rows: all query heads of a KV head in one pass over its keys.
//
// The workspace begins with the partial out, [num_splits, batch, seq_len_q, num_q_heads, head_dim_v / 4]. Each partial lse takes a vec4,
// since different workgroups write neighbouring ones, and a part of a vec4 cannot be written alone.
@group(0) @binding(Q_BINDING) var<storage, read> q: array<QElem4>; // [batch, seq_len_q, num_q_heads, head_dim / 4]
@group(0) @binding(K_BINDING) var<storage, read> k: array<KChunk>; // [batch, seq_len_kv, num_kv_heads, head_dim / 4]
@group(0) @binding(V_BINDING) var<storage, read> v: array<VChunk>; // [batch, seq_len_kv, num_kv_heads, head_dim_v / 4]

fn partial_row(tile: Tile, place: Place) -> u32 {
    let head = tile.heads * params.group_size + place.head;
    let out_row = (tile.batch * params.seq_len_q + place.q_index) * params.num_q_heads + head;
    return tile.split * params.batch_size * params.seq_len_q * params.num_q_heads + out_row;
}

fn store_out(tile: Tile, place: Place, column: u32, value: vec4<f32>) {
    workspace[partial_row(tile, place) * HEAD_DIM_V4 + column] = bitcast<vec4<u32>>(value);
}

fn store_lse(tile: Tile, place: Place, value: f32) {
    workspace[params.partial_lse_at + partial_row(tile, place)] = vec4<u32>(bitcast<u32>(value), 0u, 0u, 0u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn attend_decode(
    thread: Thread,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
    let place = place_of_workgroup(workgroup, num_workgroups);
    if place.batch >= params.batch_size {
        return;
    }
    let rows = rows_of_workgroup(place);
    if rows.begin >= rows.end {
        return;
    }
    var walk = walk_of(place, rows);

    // Splits consist of whole tiles and are as even as possible, given the actual length of the walk. A split may be empty, and then leaves
    // LSE_EMPTY.
    let num_tiles = (walk.end - walk.begin + TILE_KV - 1u) / TILE_KV;
    let begin = walk.begin;
    walk.begin = begin + num_tiles * place.split / params.num_splits * TILE_KV;
    walk.end = min(begin + num_tiles * (place.split + 1u) / params.num_splits * TILE_KV, walk.end);
    attend_rows(Tile(place.batch, place.heads, first_row_of(rows, thread), rows.end, place.split, place.slot, thread), walk);
}
