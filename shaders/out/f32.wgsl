// Family `out`: four f32 values as they are stored in `out`.
alias OutElem4 = vec4<f32>;

fn narrow(value: vec4<f32>) -> OutElem4 {
    return value;
}
