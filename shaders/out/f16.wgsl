// Family `out`: f16 through the WGSL type. Needs SHADER_F16.
alias OutElem4 = vec4<f16>;

fn narrow(value: vec4<f32>) -> OutElem4 {
    return vec4<f16>(value);
}
