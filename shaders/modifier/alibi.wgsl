// Family `modifier`: a function of a score in natural units. Here a bias that falls with the distance (ALiBi).
@group(0) @binding(SLOPES_BINDING) var<storage, read> slopes: array<f32>; // [num_q_heads]

// What is computed once a row: the slope of its head.
alias RowPart = f32;

fn row_part(query: ScoreQuery) -> RowPart {
    return slopes[query.head];
}

fn modify(score: f32, query: ScoreQuery, part: RowPart, key: u32) -> f32 {
    return score - part * f32(abs(query.position - i32(key)));
}
