// Family `out`: four f32 values as stored in `out`. Here unchanged.
alias OutElem4 = vec4<f32>;

fn narrow(value: vec4<f32>) -> OutElem4 {
    return value;
}
