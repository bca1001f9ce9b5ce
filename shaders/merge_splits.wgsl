// One invocation merges the parts of four columns of one row: (out, lse) pairs over disjoint keys are associative.
@group(0) @binding(0) var<uniform>             params: MergeParams;
@group(0) @binding(1) var<storage, read>       partial_out: array<vec4<f32>>; // [num_parts, num_rows, head_dim_v / 4]
@group(0) @binding(2) var<storage, read>       partial_lse: array<f32>;       // [num_parts, num_rows]
@group(0) @binding(3) var<storage, read_write> out: array<OutElem4>;          // [batch, seq_len_q, num_q_heads, head_dim_v / 4]
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;               // [batch, seq_len_q, num_q_heads]

@compute @workgroup_size(WORKGROUP_SIZE)
fn merge_splits(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let item = (params.first_place + workgroup.y * num_workgroups.x + workgroup.x) * WORKGROUP_SIZE + index;
    let row = item / HEAD_DIM_V4;
    let column = item % HEAD_DIM_V4;
    if row >= params.num_rows {
        return;
    }

    var max_lse = LSE_EMPTY;
    // An lse of NaN or +infinity makes the row NaN.
    var spoiled = false;
    for (var part = 0u; part < params.num_parts; part++) {
        let part_lse = partial_lse[params.parts_lse_offset + part * params.num_rows + row];
        spoiled = spoiled || is_nan(part_lse) || is_infinity(part_lse);
        max_lse = max(max_lse, part_lse);
    }
    var sum = 0.0;
    var acc = vec4<f32>();
    for (var part = 0u; part < params.num_parts; part++) {
        let part_row = part * params.num_rows + row;
        let part_lse = partial_lse[params.parts_lse_offset + part_row];
        // Parts that saw no key take no part: their lse is LSE_EMPTY, or -infinity as others write it.
        if part_lse > LSE_EMPTY {
            let weight = max(exp(part_lse - max_lse), LEAST_WEIGHT);
            sum += weight;
            acc = fma(vec4<f32>(weight), partial_out[params.parts_out_offset + part_row * HEAD_DIM_V4 + column], acc);
        }
    }

    let empty = sum == 0.0;
    let head = row % params.num_q_heads;
    let query = row / params.num_q_heads % params.seq_len_q;
    let batch = row / params.num_q_heads / params.seq_len_q;
    let out_at = params.out_offset + batch * params.out_batch + query * params.out_seq + head * params.out_head;
    out[out_at + column] = narrow(nan_if4(spoiled, select(acc / sum, vec4<f32>(), empty)));
    if WRITE_LSE && column == 0u {
        lse[params.lse_offset + batch * params.lse_batch + query * params.lse_seq + head * params.lse_head] =
            nan_if(spoiled, select(max_lse + log(sum), LSE_EMPTY, empty));
    }
}
