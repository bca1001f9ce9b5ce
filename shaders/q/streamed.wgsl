// Family `q`: how a lane gets the queries, all of which every tile needs. Here it loads them again for each tile.
fn keep_queries(tile: Tile, own: u32) {}

fn query4(slot: u32, begin: u32, d4: u32) -> vec4<f32> {
    return widen_q(q[begin + d4]);
}
