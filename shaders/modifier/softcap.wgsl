// Family `modifier`: a function of a score in natural units. Here soft capping: cap * tanh(score / cap).
struct Softcap {
    cap: f32,
    inverse: f32,
}

@group(0) @binding(SOFTCAP_BINDING) var<uniform> softcap: Softcap;

// What is computed once a row. Here nothing.
alias RowPart = u32;

fn row_part(query: ScoreQuery) -> RowPart {
    return 0u;
}

fn modify(score: f32, query: ScoreQuery, part: RowPart, key: u32) -> f32 {
    return softcap.cap * tanh_of(score * softcap.inverse);
}
