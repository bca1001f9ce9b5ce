// Family `chunk`: what one load of a key or a value brings. Here one vec4.
alias Chunk = Elem4;

fn widen_part(chunk: Chunk, part: u32) -> vec4<f32> {
    return widen(chunk);
}
