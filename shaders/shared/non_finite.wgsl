// Rows that saw a NaN, and rows that saw nothing. A NaN need not survive a comparison, a maximum, an exponential or a product, and a
// compiler may assume that there is none: so a row keeps a bit for it, and writes NaN by bits at the end.

// LSE_EMPTY is the lse of a row that saw no key.
//
// Smallest weight of a seen key, so that a NaN or an infinity in its value reaches the row however low the score: the smallest number
// that no device flushes to 0.
const LEAST_WEIGHT = 1.17549435e-38;
const INFINITY_BITS = 0x7f800000u;
const NAN_BITS = 0x7fc00000u;
// Stands for a sum of weights with a NaN among them: no other sum is negative, and adding weights leaves it negative.
const NON_FINITE_SUM = -3.0e38;

fn is_nan(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) > INFINITY_BITS;
}

fn any_nan(value: vec4<f32>) -> bool {
    let magnitude = bitcast<vec4<u32>>(value) & vec4<u32>(0x7fffffffu);
    return max(max(magnitude.x, magnitude.y), max(magnitude.z, magnitude.w)) > INFINITY_BITS;
}

fn is_infinity(value: f32) -> bool {
    return bitcast<u32>(value) == INFINITY_BITS;
}

// Whether a sum of weights had a NaN among them: then it is negative, infinite or NaN.
fn is_non_finite_sum(sum: f32) -> bool {
    return bitcast<u32>(sum) >= INFINITY_BITS;
}

// The value, or NaN if there was one.
fn nan_if(non_finite: bool, value: f32) -> f32 {
    return bitcast<f32>(select(bitcast<u32>(value), NAN_BITS, non_finite));
}

fn nan_if4(non_finite: bool, value: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(select(bitcast<vec4<u32>>(value), vec4<u32>(NAN_BITS), non_finite));
}
