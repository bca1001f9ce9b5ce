// Family `fold`: how long walks keep their sums accurate. Matrix units may truncate sums, always towards 0, and the error adds up: here,
// every FOLD_TILES tiles, this lane adds them to its own f32 sums, and they begin again at 0.
var<private> folded: array<vec4<f32>, FOLDED>; // this lane's share of each column of matrices

// Whether the sums are folded between two tiles, given by their numbers: once in FOLD_TILES tiles, also where empty ones are passed over.
// The weights of tile `number` are not yet in them.
fn is_folded_after(number: u32, next: u32) -> bool {
    return number > 1u && (next - 2u) / FOLD_TILES > (number - 2u) / FOLD_TILES;
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
