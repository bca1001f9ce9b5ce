// Family `sink`: a logit of each query head that joins the sum of a row's weights, and has no value. Here one from a tensor [num_q_heads],
// whose elements are those of `number`, taken for `sinks`. It joins once, at the end of a row, never in a part of one.
struct SinkPlace {
    offset: u32,
}

@group(0) @binding(SINK_PLACE_BINDING) var<uniform> sink_place: SinkPlace;

// The sum that divides a row's values. `reference` is the score, in base 2, that weights are relative to.
fn total_of(sum: f32, head: u32, reference: f32) -> f32 {
    return sum + exp2(number_at_sinks(sink_place.offset + head) * 1.4426950408889634 - reference);
}
