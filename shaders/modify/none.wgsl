// Family `modify`: what becomes of a score between q·k and softmax. Here nothing: it is scaled to an exponent of 2.

// What the modifiers of a score need to know of its row. Here nothing.
alias ScoreRow = u32;

fn score_row(tile: Tile, row: u32, walk: Walk) -> ScoreRow {
    return row;
}

// The score of a key in base 2: q·k times `scale`, modified. A key whose score is not above MASKED is not seen.
fn modified(product: f32, scale: f32, row: ScoreRow, key: u32) -> f32 {
    return product * scale;
}

// Four scores of a row, of the keys from place `at` of the walk on.
fn modified4(product4: vec4<f32>, scale: f32, row: ScoreRow, walk: Walk, at: u32) -> vec4<f32> {
    return product4 * scale;
}
