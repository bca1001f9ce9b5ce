// Family `out`: bf16 as pairs in u32, rounded to nearest even. A NaN stays a NaN: its mantissa must not carry out.
alias OutElem4 = vec2<u32>;

fn narrow_bf16(value: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let rounded = (bits + vec4(0x7fffu) + ((bits >> vec4(16u)) & vec4(1u))) >> vec4(16u);
    let is_nan = (bits & vec4(0x7fffffffu)) > vec4(0x7f800000u);
    return select(rounded, (bits >> vec4(16u)) | vec4(0x40u), is_nan);
}

fn narrow(value: vec4<f32>) -> OutElem4 {
    let half = narrow_bf16(value);
    return half.xz | (half.yw << vec2(16u));
}
