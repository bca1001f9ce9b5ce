// Family `elem`: four stored elements of q, k or v, widened to f32. Here f32 already.
alias Elem4 = vec4<f32>;

fn widen(elem: Elem4) -> vec4<f32> {
    return elem;
}
