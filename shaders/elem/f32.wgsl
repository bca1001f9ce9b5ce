// Family `elem`: four stored elements of a tensor, widened to f32; taken once for each tensor of a kernel that reads several. Here f32
// already.
alias Elem4 = vec4<f32>;

fn widen(elem: Elem4) -> vec4<f32> {
    return elem;
}
