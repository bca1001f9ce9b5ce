// Every invocation advances eight independent chains of vec4, x = factor x + addend, in `Scalar`: f32 or f16.
struct RateParams {
    num_iterations: u32, // of two steps each
    factor: f32,
    addend: f32,
}

@group(0) @binding(PARAMS_BINDING) var<uniform>             params: RateParams;
@group(0) @binding(SUMS_BINDING)   var<storage, read_write> sums: array<vec4<f32>>; // one an invocation: of its chains

@compute @workgroup_size(WORKGROUP_SIZE)
fn multiply_add(@builtin(global_invocation_id) invocation: vec3<u32>) {
    let factor = vec4<Scalar>(Scalar(params.factor));
    let addend = vec4<Scalar>(Scalar(params.addend));
    // Lanes differ, so that no compiler computes one result for all.
    let start = vec4<Scalar>(Scalar(invocation.x % 4u));
    var x0 = start + vec4<Scalar>(0.0);
    var x1 = start + vec4<Scalar>(1.0);
    var x2 = start + vec4<Scalar>(2.0);
    var x3 = start + vec4<Scalar>(3.0);
    var x4 = start + vec4<Scalar>(4.0);
    var x5 = start + vec4<Scalar>(5.0);
    var x6 = start + vec4<Scalar>(6.0);
    var x7 = start + vec4<Scalar>(7.0);
    for (var iteration = 0u; iteration < params.num_iterations; iteration++) {
        x0 = fma(fma(x0, factor, addend), factor, addend);
        x1 = fma(fma(x1, factor, addend), factor, addend);
        x2 = fma(fma(x2, factor, addend), factor, addend);
        x3 = fma(fma(x3, factor, addend), factor, addend);
        x4 = fma(fma(x4, factor, addend), factor, addend);
        x5 = fma(fma(x5, factor, addend), factor, addend);
        x6 = fma(fma(x6, factor, addend), factor, addend);
        x7 = fma(fma(x7, factor, addend), factor, addend);
    }
    sums[invocation.x] = vec4<f32>(x0) + vec4<f32>(x1) + vec4<f32>(x2) + vec4<f32>(x3)
        + vec4<f32>(x4) + vec4<f32>(x5) + vec4<f32>(x6) + vec4<f32>(x7);
}
