// The numbers and tensors of a product with weights.
struct ProjectParams {
    num_tokens: u32,
    cols_vec4: u32,  // inputs / 4
    num_rows: u32,   // outputs of this buffer
    first_row: u32,  // outputs before it
    all_rows: u32,   // outputs of a token
    bias: u32,       // 1: there is a bias
    accumulate: u32, // 1: added to what out holds
}

@group(0) @binding(PARAMS_BINDING) var<uniform>             params: ProjectParams;
@group(0) @binding(X_BINDING)      var<storage, read>       x: array<vec4<f32>>;   // [num_tokens, cols / 4]
@group(0) @binding(WEIGHT_BINDING) var<storage, read>       weight: array<Elem4>;  // [num_rows, cols / 4]
@group(0) @binding(BIAS_BINDING)   var<storage, read>       bias: array<f32>;      // [all_rows]
@group(0) @binding(OUT_BINDING)    var<storage, read_write> out: array<f32>;       // [num_tokens, all_rows]
