// Family `fold`: how long walks keep their sums accurate. Here the sums stay in matrices.

fn is_folded_after(number: u32, next: u32) -> bool {
    return false;
}

fn fold4(at: u32, value: vec4<f32>) {}

fn scale_folded(at: u32, factor: f32) {}

fn folded4(at: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn carry_folded(first: u32, tile: Tile) {}

fn resume_folded(first: u32, tile: Tile) {}
