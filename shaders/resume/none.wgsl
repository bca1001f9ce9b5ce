// Family `resume`: how a workgroup's walk is cut into parts, one dispatch each. Here it is not cut.

struct Part {
    begin: u32,
    end: u32,
    resumes: bool,
    is_over: bool,
}

fn part_of(walk: Walk) -> Part {
    return Part(walk.begin, walk.end, false, false);
}

fn carried4(i: u32, tile: Tile) -> vec4<f32> {
    return vec4<f32>();
}

fn carry4(i: u32, value: vec4<f32>, tile: Tile) {}
