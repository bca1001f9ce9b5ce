// Family `chunk`: the size of one load of a key or value. Here 16 bytes, two vec4 of a 16-bit type: rows begin at multiples of 16 bytes,
// as the caller promised. Elem4 is a vec2<u32>.
alias Chunk = vec4<u32>;

fn widen_part(chunk: Chunk, part: u32) -> vec4<f32> {
    return widen(select(chunk.xy, chunk.zw, part == 1u));
}
