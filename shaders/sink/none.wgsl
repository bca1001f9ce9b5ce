// Family `sink`: a logit of each query head that joins the sum of a row's weights, and has no value. Here there is none.

// The sum that divides a row's values. `reference` is the score, in base 2, that weights are relative to.
fn total_of(sum: f32, head: u32, reference: f32) -> f32 {
    return sum;
}
