// Family `modify`: what becomes of a score between q·k and softmax. Here it passes through the modifiers of the problem, one after the
// other. The assembler writes the chain itself, as a function of this text:
//
//     fn chain(score: f32, row: ScoreRow, key: u32) -> f32
//
// Each modifier is a module of the family `modifier`, taken once for each place in the chain. It is given the score in natural units.

const LOG2_E = 1.4426950408889634;

// What the modifiers of a score may know of its row.
struct ScoreRow {
    batch: u32,
    // The query head.
    head: u32,
    // At most seq_len_q - 1, for rows past the last one too: modifiers may index by it.
    q_index: u32,
    // The key that the query sits on.
    position: i32,
}

fn score_row(tile: Tile, row: u32, walk: Walk) -> ScoreRow {
    let place = place_of(row);
    let q_index = min(place.q_index, params.seq_len_q - 1u);
    let head = tile.heads * params.group_size + place.head;
    return ScoreRow(tile.batch, head, q_index, i32(q_index) + i32(walk.seq_len_kv) - i32(params.seq_len_q));
}

// The score of a key in base 2: q·k times `scale`, modified. A key whose score is not above MASKED is not seen.
fn modified(product: f32, scale: f32, row: ScoreRow, key: u32) -> f32 {
    return chain(product * scale, row, key) * LOG2_E;
}

// Four scores of a row, of the keys from place `at` of the walk on.
fn modified4(product4: vec4<f32>, scale: f32, row: ScoreRow, walk: Walk, at: u32) -> vec4<f32> {
    var score4 = product4 * scale;
    for (var c = 0u; c < 4u; c++) { // unroll
        score4[c] = chain(score4[c], row, walk_key(walk, at + c));
    }
    return score4 * LOG2_E;
}
