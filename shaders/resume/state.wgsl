// Family `resume`: how a workgroup's walk is cut into parts, one dispatch each. Here into parts of params.part_tiles tiles. Between two
// parts each lane's state is kept in memory bit by bit, so the results equal those of an uncut walk. The state is CARRIED vec4: for each
// of the lane's rows its COLS columns, then the row's maximum and sum. The workspace holds [workgroups, CARRIED, WORKGROUP_SIZE] from
// params.carried_at on.

struct Part {
    // Places of the walk: up to walk.end in the last part.
    begin: u32,
    end: u32,
    resumes: bool,
    // The walk ended in an earlier part.
    is_over: bool,
}

fn part_of(walk: Walk) -> Part {
    let begin = min(walk.begin + stretch.first_tile * TILE_KV, walk.end);
    let resumes = stretch.first_tile > 0u;
    return Part(begin, min(begin + params.part_tiles * TILE_KV, walk.end), resumes, resumes && begin == walk.end);
}

fn state_at(i: u32, tile: Tile) -> u32 {
    return params.carried_at + (tile.slot * CARRIED + i) * WORKGROUP_SIZE + group_of(tile.thread) * LANES + lane_of(tile.thread);
}

fn carried4(i: u32, tile: Tile) -> vec4<f32> {
    return bitcast<vec4<f32>>(workspace[state_at(i, tile)]);
}

fn carry4(i: u32, value: vec4<f32>, tile: Tile) {
    workspace[state_at(i, tile)] = bitcast<vec4<u32>>(value);
}
