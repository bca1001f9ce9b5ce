// Family `q`: the queries that a lane loads, of which every tile needs all. Here they stay in the lane's own memory, which a
// software device reads faster than it loads, as that tests each element for its place in the buffer.
var<private> kept_queries: array<vec4<f32>, SLOTS * HEAD_DIM4>;

fn keep_queries(tile: Tile, own: u32) {
    // One long loop: some compilers unroll short ones on their own, and choke on what comes out.
    for (var i = 0u; i < SLOTS * HEAD_DIM4; i++) {
        let place = place_of(tile.first_row + i / HEAD_DIM4 * SHARE + own);
        kept_queries[i] = widen(q[q_index(tile, place) + i % HEAD_DIM4]);
    }
}

fn query4(slot: u32, begin: u32, d4: u32) -> vec4<f32> {
    return kept_queries[slot * HEAD_DIM4 + d4];
}
