// Family `elem`: f32 as pairs in u64, for software devices: they load one element after the other, a wide one as fast as a narrow one.
alias Elem4 = vec2<u64>;

fn widen(elem: Elem4) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(u32(elem.x), u32(elem.x >> 32u), u32(elem.y), u32(elem.y >> 32u)));
}
