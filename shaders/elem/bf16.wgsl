// Family `elem`: bf16 as pairs in u32. A bf16 is the upper half of an f32.
alias Elem4 = vec2<u32>;

fn widen(elem: Elem4) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(
        elem.x << 16u,
        elem.x & 0xffff0000u,
        elem.y << 16u,
        elem.y & 0xffff0000u,
    ));
}
