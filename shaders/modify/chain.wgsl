// Family `modify`: what becomes of a score between q·k and softmax. Here it passes through a chain of modifiers.
//
// A modifier is a module of the family `modifier`, taken under the name of its place in the chain. With two places, `first` and `second`,
// the assembler writes
//
//     struct ScoreRow {
//         query: ScoreQuery,
//         first: FirstRowPart,
//         second: SecondRowPart,
//     }
//     fn score_row_of(query: ScoreQuery) -> ScoreRow  // calls row_part_first(query), row_part_second(query)
//     fn chain(score: f32, row: ScoreRow, key: u32) -> f32  // calls modify_first(score, row.query, row.first, key), then modify_second
//
// HIDES_KEYS: a modifier can make a score LEAST_SCORE or less, which hides the key from the row.

const LOG2_E = 1.4426950408889634;

// What modifiers may know of a row.
struct ScoreQuery {
    batch: u32,
    // The query head.
    head: u32,
    // At most seq_len_q - 1, for rows past the last one too: modifiers index by it.
    q_index: u32,
    // The key that the query sits on.
    position: i32,
}

fn score_row(tile: Tile, row: u32, walk: Walk) -> ScoreRow {
    let place = place_of(row);
    let q_index = min(place.q_index, params.seq_len_q - 1u);
    let position = i32(q_index) + i32(walk.seq_len_kv) - i32(params.seq_len_q);
    return score_row_of(ScoreQuery(tile.batch, head_of(tile, place), q_index, position));
}

// The score of a key in base 2: q·k times `scale`, modified; MASKED where the key is hidden.
fn modified(product: f32, scale: f32, row: ScoreRow, key: u32) -> f32 {
    let score = chain(product * scale, row, key);
    return select(score * LOG2_E, MASKED, HIDES_KEYS && score <= LEAST_SCORE);
}

// Four scores of a row, of the keys from place `at` of the walk on.
fn modified4(product4: vec4<f32>, scale: f32, row: ScoreRow, walk: Walk, at: u32) -> vec4<f32> {
    var score4: vec4<f32>;
    for (var c = 0u; c < 4u; c++) { // unroll
        score4[c] = modified(product4[c], scale, row, walk_key(walk, at + c));
    }
    return score4;
}

// Whether all rows see all keys of a tile.
fn is_seen_whole(walk: Walk, tile_begin: u32) -> bool {
    return !HIDES_KEYS && walk_is_full(walk, tile_begin);
}

// Whether a key is hidden from a row that the walk lets see it, whatever its finite score.
fn is_hidden(tile: Tile, row: u32, walk: Walk, key: u32) -> bool {
    return HIDES_KEYS && chain(0.0, score_row(tile, row, walk), key) <= LEAST_SCORE;
}
