// Family `chunk`: the size of one load of a key or value, taken once for k and once for v. Here one vec4.
alias Chunk = Elem4;

fn widen_part(chunk: Chunk, part: u32) -> vec4<f32> {
    return widen(chunk);
}
