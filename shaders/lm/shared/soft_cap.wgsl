// Logits that are capped: cap * tanh(raw / cap).

// The device's own tanh may be off by a thousandth for small numbers, and NaN for large ones. Here a continued fraction up to 1,
// and past it the exponential, of which neither overflows nor cancels: a few units in the last place either way.
fn steady_tanh(x: f32) -> f32 {
    let square = x * x;
    let numerator = 10395.0 + square * (1260.0 + square * 21.0);
    let small = x * (numerator / (10395.0 + square * (4725.0 + square * (210.0 + square))));
    // In f32 it is 1 from there on.
    let large = 1.0 - 2.0 / (exp(2.0 * min(abs(x), 10.0)) + 1.0);
    return select(small, select(large, -large, x < 0.0), abs(x) > 1.0);
}

fn soft_cap(raw: f32, cap: f32) -> f32 {
    return cap * steady_tanh(raw / cap);
}
