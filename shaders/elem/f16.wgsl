// Family `elem`: f16 through the WGSL type. Needs SHADER_F16.
alias Elem4 = vec4<f16>;

fn widen(elem: Elem4) -> vec4<f32> {
    return vec4<f32>(elem);
}
