// Family `resume`: how the walk of a workgroup is cut into parts, each a dispatch's. Here into parts of params.part_tiles
// tiles. Between two of them lies in memory what every lane has accumulated, to the bit: results are those of the walk
// in one piece. For each of a lane's rows that are its COLS columns, then the row's maximum and sum: CARRIED vec4. From
// params.carried_at on the workspace holds [workgroups, CARRIED, WORKGROUP_SIZE].

struct Part {
    // Keys to go through: up to walk.end in the last part.
    begin: u32,
    end: u32,
    resumes: bool,
    // An earlier part was the last one.
    is_over: bool,
}

fn part_of(walk: Walk) -> Part {
    let begin = min(walk.begin + stretch.first_tile * TILE_KV, walk.end);
    let resumes = stretch.first_tile > 0u;
    return Part(begin, min(begin + params.part_tiles * TILE_KV, walk.end), resumes, resumes && begin == walk.end);
}

fn carried_at(i: u32, tile: Tile) -> u32 {
    return params.carried_at + (tile.slot * CARRIED + i) * WORKGROUP_SIZE + group_of(tile.thread) * LANES + lane_of(tile.thread);
}

fn carried4(i: u32, tile: Tile) -> vec4<f32> {
    return bitcast<vec4<f32>>(workspace[carried_at(i, tile)]);
}

fn carry4(i: u32, value: vec4<f32>, tile: Tile) {
    workspace[carried_at(i, tile)] = bitcast<vec4<u32>>(value);
}
