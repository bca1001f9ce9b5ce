// Family `elem`: f16 as pairs in u32, for devices without SHADER_F16.
alias Elem4 = vec2<u32>;

fn widen(elem: Elem4) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(elem.x), unpack2x16float(elem.y));
}
