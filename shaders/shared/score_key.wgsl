// Scores as integers of the same order.

// Keys compare as their numbers do. -0 is 0; no number has the key 0. Scores are never NaN; should a device produce one, it ranks below
// all numbers, and still counts as a candidate.
fn key_of_score(score: f32) -> u32 {
    let magnitude = bitcast<u32>(score) & 0x7fffffffu;
    let bits = select(bitcast<u32>(score), 0u, magnitude == 0u);
    let key = select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
    return select(key, 1u, magnitude > 0x7f800000u);
}
