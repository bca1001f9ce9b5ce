// Family `fold`: where the sums of a long walk go that must not stay in matrices. Here they stay.

fn is_folded_before(number: u32) -> bool {
    return false;
}

fn fold4(at: u32, value: vec4<f32>) {}

fn scale_folded(at: u32, factor: f32) {}

fn folded4(at: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn carry_folded(first: u32, tile: Tile) {}

fn resume_folded(first: u32, tile: Tile) {}
