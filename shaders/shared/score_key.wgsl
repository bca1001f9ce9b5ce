// Scores as integers that rank as they do.

// Keys of numbers compare as the numbers do. -0 is 0; no number has the key 0. Scores are none of NaN; should a device make
// one of them, it ranks below all numbers, and is still there.
fn key_of_score(score: f32) -> u32 {
    let magnitude = bitcast<u32>(score) & 0x7fffffffu;
    let bits = select(bitcast<u32>(score), 0u, magnitude == 0u);
    let key = select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
    return select(key, 1u, magnitude > 0x7f800000u);
}
