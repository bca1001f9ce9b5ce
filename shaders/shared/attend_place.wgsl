// A workgroup's share of the work. The grid is one line of (batch, heads, row tile, split), the last fastest, or with HEADS_FIRST of
// (row tile, batch, heads, split). A dispatch is a stretch of it, folded into two axes where one is too short; workgroups past the grid's
// end get a batch that does not exist.
struct WorkgroupPlace {
    batch: u32,
    heads: u32,
    row_tile: u32,
    split: u32,
    // Index of the workgroup in its dispatch.
    slot: u32,
}

// Rows of a workgroup; `end` may lie below `begin` + TILE_Q.
struct RowTile {
    begin: u32,
    end: u32,
}

// Tiles of rows in the order in which they start. Under a causal mask the last rows see the most keys and start first, so that none of
// them runs alone at the end; with HEADS_FIRST, those of all heads. Where every core gets a run of neighbours, LONG_AND_SHORT alternates
// long and short tiles.
fn row_tile_of(place: WorkgroupPlace) -> u32 {
    let last = params.row_tiles - 1u;
    if !LONG_AND_SHORT {
        return last - place.row_tile;
    }
    return select(last - place.row_tile / 2u, place.row_tile / 2u, place.row_tile % 2u == 1u);
}

fn place_of_workgroup(workgroup: vec3<u32>, num_workgroups: vec3<u32>) -> WorkgroupPlace {
    let slot = workgroup.y * num_workgroups.x + workgroup.x;
    let index = stretch.first_place + slot;
    let row = index / params.num_splits;
    let num_heads = params.num_q_heads / params.group_size;
    let split = index % params.num_splits;
    if HEADS_FIRST {
        let num_all = num_heads * params.batch_size;
        let row_tile = row / num_all;
        let batch = select(row % num_all / num_heads, params.batch_size, row_tile >= params.row_tiles);
        return WorkgroupPlace(batch, row % num_heads, row_tile, split, slot);
    }
    let heads = row / params.row_tiles;
    return WorkgroupPlace(heads / num_heads, heads % num_heads, row % params.row_tiles, split, slot);
}
