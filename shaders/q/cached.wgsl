// Family `q`: how a lane gets the queries, all of which every tile needs. Here it keeps them in its own memory. A software device reads
// that faster than a buffer, where it checks the bounds of each element.
var<private> kept_queries: array<vec4<f32>, SLOTS * HEAD_DIM4>;

fn keep_queries(tile: Tile, own: u32) {
    // One long loop: some compilers unroll short loops on their own, and take very long over the result.
    for (var i = 0u; i < SLOTS * HEAD_DIM4; i++) {
        let place = place_of(tile.first_row + i / HEAD_DIM4 * SHARE + own);
        kept_queries[i] = widen_q(q[q_index(tile, place) + i % HEAD_DIM4]);
    }
}

fn query4(slot: u32, begin: u32, d4: u32) -> vec4<f32> {
    return kept_queries[slot * HEAD_DIM4 + d4];
}
