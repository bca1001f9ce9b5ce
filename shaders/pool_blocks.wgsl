// One invocation computes four channels of the summary of one block of keys of one head: their mean, smallest or largest values.
@group(0) @binding(PARAMS_BINDING)    var<uniform>             params: PoolParams;
@group(0) @binding(K_BINDING)         var<storage, read>       k: array<Elem4>;             // [batch, seq_len_kv, num_heads, head_dim / 4]
@group(0) @binding(SUMMARIES_BINDING) var<storage, read_write> summaries: array<vec4<f32>>; // [batch, num_blocks, num_heads, NUM_VECTORS * head_dim / 4]

// Offsets and strides of k and of the summaries count vec4 elements.
struct PoolParams {
    batch_size: u32,
    seq_len_kv: u32,
    num_heads: u32,
    block_size: u32,
    num_blocks: u32,
    k_offset: u32,
    k_batch: u32,
    k_seq: u32,
    k_head: u32,
    summaries_offset: u32,
    summaries_batch: u32,
    summaries_seq: u32,
    summaries_head: u32,
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn pool_blocks(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    // Neighbouring invocations take neighbouring channels.
    let item = (stretch.first_place + workgroup.y * num_workgroups.x + workgroup.x) * WORKGROUP_SIZE + index;
    let column = item % HEAD_DIM4;
    let head = item / HEAD_DIM4 % params.num_heads;
    let block = item / HEAD_DIM4 / params.num_heads % params.num_blocks;
    let batch = item / HEAD_DIM4 / params.num_heads / params.num_blocks;
    if batch >= params.batch_size {
        return;
    }
    let first = block * params.block_size;
    let end = min(first + params.block_size, seq_len_kv_of(batch));
    let k_rows = rows_of_k(batch, head);
    var sum = vec4<f32>();
    var least = vec4<f32>();
    var largest = vec4<f32>();
    // A NaN need not survive a sum or a maximum, so it is remembered apart.
    var has_nan = vec4<bool>();
    for (var key = first; key < end; key++) {
        let value = widen(k[k_rows.begin + key_row(k_rows, key) + column]);
        has_nan = has_nan | ((bitcast<vec4<u32>>(value) & vec4<u32>(0x7fffffffu)) > vec4<u32>(INFINITY_BITS));
        sum += value;
        least = select(min(least, value), value, key == first);
        largest = select(max(largest, value), value, key == first);
    }
    let to = params.summaries_offset + batch * params.summaries_batch + block * params.summaries_seq
        + head * params.summaries_head + column;
    if POOL_MEAN {
        // Adding the remainder makes representable means exact, whatever the device's division does.
        let count = vec4<f32>(f32(max(end, first + 1u) - first));
        let mean = sum / count;
        let is_finite = (bitcast<vec4<u32>>(mean) & vec4<u32>(INFINITY_BITS)) != vec4<u32>(INFINITY_BITS);
        summaries[to] = nan_where(has_nan, select(mean, mean + fma(-mean, count, sum) / count, is_finite));
    }
    if POOL_MIN {
        summaries[to] = nan_where(has_nan, least);
    }
    if POOL_MAX {
        // The last vector of the summary.
        summaries[to + (NUM_VECTORS - 1u) * HEAD_DIM4] = nan_where(has_nan, largest);
    }
}

fn nan_where(has_nan: vec4<bool>, value: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(select(bitcast<vec4<u32>>(value), vec4<u32>(NAN_BITS), has_nan));
}
