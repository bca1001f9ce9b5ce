// One invocation copies four columns of one token's row of the embedding. A large embedding is split over several buffers; each dispatch
// copies the tokens whose rows are in its buffer.
struct EmbedParams {
    num_tokens: u32,
    width_vec4: u32, // columns / 4
    first_row: u32,  // of the buffer
    num_rows: u32,
}

@group(0) @binding(PARAMS_BINDING)    var<uniform>             params: EmbedParams;
@group(0) @binding(TOKENS_BINDING)    var<storage, read>       tokens: array<u32>;       // [num_tokens]
@group(0) @binding(EMBEDDING_BINDING) var<storage, read>       embedding: array<Elem4>;  // [num_rows, width / 4]
@group(0) @binding(HIDDEN_BINDING)    var<storage, read_write> hidden: array<vec4<f32>>; // [num_tokens, width / 4]

@compute @workgroup_size(WORKGROUP_SIZE)
fn embed_tokens(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let item = (workgroup.y * num_workgroups.x + workgroup.x) * WORKGROUP_SIZE + index;
    let token = item / params.width_vec4;
    if token >= params.num_tokens {
        return;
    }
    // Indices of rows before the buffer's first wrap around to large numbers.
    let row = tokens[token] - params.first_row;
    if row < params.num_rows {
        hidden[item] = widen(embedding[row * params.width_vec4 + item % params.width_vec4]);
    }
}
