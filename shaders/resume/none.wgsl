// Family `resume`: how the walk of a workgroup is cut into parts, each a dispatch's. Here not at all.

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
