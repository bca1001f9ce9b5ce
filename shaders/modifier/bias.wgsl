// Family `modifier`: a function of a score in natural units. Here a tensor is added: [batch, head, query, key], where strides of 0 let an
// entry serve a whole axis. Its elements are those of `number`. Sequence b of the batch takes entry b / batch_divisor % batch_modulus.
struct BiasPlace {
    offset: u32,
    batch: u32,
    head: u32,
    query: u32,
    key: u32,
    batch_divisor: u32,
    batch_modulus: u32,
}

@group(0) @binding(BIAS_PLACE_BINDING) var<uniform> bias_place: BiasPlace;

// What is computed once a row: where it begins.
alias RowPart = u32;

fn row_part(query: ScoreQuery) -> RowPart {
    let batch = query.batch / bias_place.batch_divisor % bias_place.batch_modulus;
    return bias_place.offset + batch * bias_place.batch + query.head * bias_place.head + query.q_index * bias_place.query;
}

fn modify(score: f32, query: ScoreQuery, part: RowPart, key: u32) -> f32 {
    return score + number_at(part + key * bias_place.key);
}
