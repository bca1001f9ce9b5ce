// Family `fold`: how long walks keep their sums accurate. Matrix units may truncate sums, always towards 0, and the error adds up: here,
// every FOLD_TILES tiles, this lane adds them to its own f32 sums, and they begin again at 0.
var<private> folded: array<vec4<f32>, FOLDED>; // this lane's share of each column of matrices

// Tiles are counted from 1 at the beginning of the walk, so that folds do not depend on how it is cut.
fn is_folded_before(number: u32) -> bool {
    return number > 1u && (number - 1u) % FOLD_TILES == 0u;
}

fn fold4(at: u32, value: vec4<f32>) {
    folded[at] += value;
}

fn scale_folded(at: u32, factor: f32) {
    folded[at] *= factor;
}

fn folded4(at: u32) -> vec4<f32> {
    return folded[at];
}

fn carry_folded(first: u32, tile: Tile) {
    for (var i = 0u; i < FOLDED; i++) {
        carry4(first + i, folded[i], tile);
    }
}

fn resume_folded(first: u32, tile: Tile) {
    for (var i = 0u; i < FOLDED; i++) {
        folded[i] = carried4(first + i, tile);
    }
}
