// Every workgroup is one subgroup, which advances four independent products on the device's matrix units, c = a b + c.
// `MatrixA`, `MatrixB` and `MatrixC` are EDGE x EDGE.
struct MatrixParams {
    num_iterations: u32,
}

@group(0) @binding(PARAMS_BINDING) var<uniform>             params: MatrixParams;
@group(0) @binding(A_BINDING)      var<storage, read>       a: array<f16>;        // [4, EDGE, EDGE]
@group(0) @binding(B_BINDING)      var<storage, read>       b: array<f16>;        // [EDGE, EDGE]
@group(0) @binding(SUMS_BINDING)   var<storage, read_write> sums: array<f32>;     // [workgroups, EDGE, EDGE]: of the four products

@compute @workgroup_size(WORKGROUP_SIZE)
fn multiply_matrices(@builtin(workgroup_id) workgroup: vec3<u32>) {
    let a0 = coopLoadT<MatrixA>(&a[0], EDGE);
    let a1 = coopLoadT<MatrixA>(&a[EDGE * EDGE], EDGE);
    let a2 = coopLoadT<MatrixA>(&a[2u * EDGE * EDGE], EDGE);
    let a3 = coopLoadT<MatrixA>(&a[3u * EDGE * EDGE], EDGE);
    let b0 = coopLoadT<MatrixB>(&b[0], EDGE);
    var c0 = MatrixC();
    var c1 = MatrixC();
    var c2 = MatrixC();
    var c3 = MatrixC();
    for (var iteration = 0u; iteration < params.num_iterations; iteration++) {
        c0 = coopMultiplyAdd(a0, b0, c0);
        c1 = coopMultiplyAdd(a1, b0, c1);
        c2 = coopMultiplyAdd(a2, b0, c2);
        c3 = coopMultiplyAdd(a3, b0, c3);
    }
    coopStoreT(c0 + c1 + c2 + c3, &sums[workgroup.x * EDGE * EDGE], EDGE);
}
