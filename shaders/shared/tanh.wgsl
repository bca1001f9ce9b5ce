// The hyperbolic tangent within a few ulp; WGSL allows its own an absolute error, and some devices make NaN of large arguments. A NaN stays.

// Below 0.625 an odd minimax polynomial (relative error 9e-9), above it (1 - e) / (1 + e) with e = exp(-2 |x|).
fn tanh_of(x: f32) -> f32 {
    let square = x * x;
    let polynomial = fma(fma(fma(fma(-0.0057049855, square, 0.020639086), square, -0.053739715), square, 0.13331442), square, -0.3333328);
    let small = fma(polynomial * square, x, x);
    let e = exp2(abs(x) * -2.8853900817779268);
    let large = (1.0 - e) / (1.0 + e);
    return select(select(select(large, -large, x < 0.0), small, abs(x) < 0.625), x, is_nan(x));
}
