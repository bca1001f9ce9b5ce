// Family `modify`: what becomes of a score between q·k and softmax. Here nothing.

// What modifiers need to know of a row. There are none.
alias ScoreRow = u32;

fn score_row(tile: Tile, row: u32, walk: Walk) -> ScoreRow {
    return row;
}

// The score of a key in base 2: q·k times `scale`.
fn modified(product: f32, scale: f32, row: ScoreRow, key: u32) -> f32 {
    return product * scale;
}

// Four scores of a row, of the keys from place `at` of the walk on.
fn modified4(product4: vec4<f32>, scale: f32, row: ScoreRow, walk: Walk, at: u32) -> vec4<f32> {
    return product4 * scale;
}

// Whether all rows see all keys of a tile.
fn is_seen_whole(walk: Walk, tile_begin: u32) -> bool {
    return walk_is_full(walk, tile_begin);
}

// Whether a key is hidden from a row that the walk lets see it.
fn is_hidden(tile: Tile, row: u32, walk: Walk, key: u32) -> bool {
    return false;
}
