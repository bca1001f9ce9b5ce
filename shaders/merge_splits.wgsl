// PART_LANES invocations merge the parts of four columns of one row: (out, lse) pairs over disjoint keys are associative.
@group(0) @binding(PARTIAL_OUT_BINDING) var<storage, read>       partial_out: array<vec4<f32>>; // [num_parts, num_rows, head_dim_v / 4]
@group(0) @binding(PARTIAL_LSE_BINDING) var<storage, read>       partial_lse: array<f32>;       // [num_parts, num_rows], parts_lse_stride apart
@group(0) @binding(OUT_BINDING)         var<storage, read_write> out: array<OutElem4>;          // [batch, seq_len_q, num_q_heads, head_dim_v / 4]

// Parts of a row, merged. `sum` is that of their weights relative to `max_lse`; NON_FINITE_SUM where a part's lse is NaN or +infinity.
struct Merged {
    out: vec4<f32>,
    max_lse: f32,
    sum: f32,
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn merge_splits(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    // Neighbouring invocations take neighbouring columns.
    let items = WORKGROUP_SIZE / PART_LANES;
    let part_lane = index / items;
    let item = (stretch.first_place + workgroup.y * num_workgroups.x + workgroup.x) * items + index % items;
    let row = item / HEAD_DIM_V4;
    let column = item % HEAD_DIM_V4;

    var own = Merged(vec4<f32>(), LSE_EMPTY, 0.0);
    if row < params.num_rows {
        own = merge_parts(row, column, part_lane);
    }
    let all = join_parts(own, index);
    if row >= params.num_rows || part_lane > 0u {
        return;
    }

    let non_finite = is_non_finite_sum(all.sum);
    let empty = all.sum == 0.0;
    let head = row % params.num_q_heads;
    let query = row / params.num_q_heads % params.seq_len_q;
    let batch = row / params.num_q_heads / params.seq_len_q;
    let out_at = params.out_offset + batch * params.out_batch + query * params.out_seq + head * params.out_head;
    let total = total_of(all.sum, head, all.max_lse * 1.4426950408889634);
    out[out_at + column] = narrow(nan_if4(non_finite, select(all.out / total, vec4<f32>(), empty)));
    if column == 0u {
        put_lse(batch, query, head, nan_if(non_finite, select(all.max_lse + log(all.sum), LSE_EMPTY, empty)));
    }
}

// Merges every PART_LANES-th part, from `first` on: PARTS_AT_ONCE of them at a time, whose loads are in flight together.
fn merge_parts(row: u32, column: u32, first: u32) -> Merged {
    var max_lse = LSE_EMPTY;
    var non_finite = false;
    var sum = 0.0;
    var acc = vec4<f32>();
    for (var part = first; part < params.num_parts; part += PART_LANES * PARTS_AT_ONCE) {
        var part_lse: array<f32, PARTS_AT_ONCE>;
        var part_out: array<vec4<f32>, PARTS_AT_ONCE>;
        for (var i = 0u; i < PARTS_AT_ONCE; i++) { // unroll
            let part_row = min(part + i * PART_LANES, params.num_parts - 1u) * params.num_rows + row;
            part_lse[i] = partial_lse[params.parts_lse_offset + part_row * params.parts_lse_stride];
            part_out[i] = partial_out[params.parts_out_offset + part_row * HEAD_DIM_V4 + column];
        }
        var new_max = max_lse;
        for (var i = 0u; i < PARTS_AT_ONCE; i++) { // unroll
            // Parts past the last one repeat it.
            non_finite = non_finite || is_nan(part_lse[i]) || is_infinity(part_lse[i]);
            new_max = max(new_max, part_lse[i]);
        }
        let rescale = max(exp(max_lse - new_max), LEAST_WEIGHT);
        max_lse = new_max;
        sum *= rescale;
        acc *= rescale;
        for (var i = 0u; i < PARTS_AT_ONCE; i++) { // unroll
            // Parts that saw no key are left out: their lse is LSE_EMPTY, or -infinity in results of other programs.
            if part + i * PART_LANES < params.num_parts && part_lse[i] > LSE_EMPTY {
                let weight = max(exp(part_lse[i] - max_lse), LEAST_WEIGHT);
                sum += weight;
                acc = fma(vec4<f32>(weight), part_out[i], acc);
            }
        }
    }
    return Merged(acc, max_lse, select(sum, NON_FINITE_SUM, non_finite));
}
