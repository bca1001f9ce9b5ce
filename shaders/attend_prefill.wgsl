// One workgroup attends TILE_Q query rows of one KV head to all the keys of their walk. Rows are (query, head of
// the group) pairs, so the query heads that share a KV head share its tiles.
@group(0) @binding(Q_BINDING)   var<storage, read>       q: array<QElem4>;     // [batch, seq_len_q, num_q_heads, head_dim / 4]
@group(0) @binding(K_BINDING)   var<storage, read>       k: array<KChunk>;      // [batch, seq_len_kv, num_kv_heads, head_dim / 4]
@group(0) @binding(V_BINDING)   var<storage, read>       v: array<VChunk>;      // [batch, seq_len_kv, num_kv_heads, head_dim_v / 4]
@group(0) @binding(OUT_BINDING) var<storage, read_write> out: array<OutElem4>; // [batch, seq_len_q, num_q_heads, head_dim_v / 4]

fn store_out(tile: Tile, place: Place, column: u32, value: vec4<f32>) {
    let head = tile.heads * params.group_size + place.head;
    let at = params.out_offset + tile.batch * params.out_batch + place.q_index * params.out_seq + head * params.out_head;
    out[at + column] = narrow(value);
}

fn store_lse(tile: Tile, place: Place, value: f32) {
    put_lse(tile.batch, place.q_index, tile.heads * params.group_size + place.head, value);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn attend_prefill(
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
    attend_rows(Tile(place.batch, place.heads, first_row_of(rows, thread), rows.end, 0u, place.slot, thread), walk_of(place, rows));
}
