// Family `out`: f16 as pairs in u32, for devices without SHADER_F16. Rounded by hand: pack2x16float may round either
// way, and overflow is undefined there.
alias OutElem4 = vec2<u32>;

fn narrow_f16(value: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let sign = (bits >> vec4(16u)) & vec4(0x8000u);
    let magnitude = bits & vec4(0x7fffffffu);
    // Normal results: move the exponent bias from 127 to 15, round the 13 dropped bits to nearest even. A carry out of
    // the mantissa lands in the exponent, as it should.
    let normal = (magnitude - vec4(0x38000000u) + vec4(0x0fffu) + ((magnitude >> vec4(13u)) & vec4(1u))) >> vec4(13u);
    // Subnormal results: adding 0.5 aligns the value so that its last bit is 2^-24, the spacing of f16 subnormals.
    let subnormal = bitcast<vec4<u32>>(bitcast<vec4<f32>>(magnitude) + vec4(0.5)) - vec4(0x3f000000u);
    let finite = select(normal, subnormal, magnitude < vec4(0x38800000u));
    // 65520 and above round to infinity.
    let overflowed = select(finite, vec4(0x7c00u), magnitude >= vec4(0x477ff000u));
    return sign | select(overflowed, vec4(0x7e00u), magnitude > vec4(0x7f800000u));
}

fn narrow(value: vec4<f32>) -> OutElem4 {
    let half = narrow_f16(value);
    return half.xz | (half.yw << vec2(16u));
}
