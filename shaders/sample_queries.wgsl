// One invocation computes four columns of one sample of a query block: the mean of a few neighbouring queries, or one of them, times the
// scale of the selection.
@group(0) @binding(Q_BINDING)       var<storage, read>       q: array<Elem4>;           // [batch, seq_len_q, num_q_heads, head_dim / 4]
@group(0) @binding(SAMPLES_BINDING) var<storage, read_write> samples: array<vec4<f32>>; // [batch, num_q_heads, num_q_blocks, num_samples, head_dim / 4]

@compute @workgroup_size(WORKGROUP_SIZE)
fn sample_queries(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let item = (stretch.first_place + workgroup.y * num_workgroups.x + workgroup.x) * WORKGROUP_SIZE + index;
    let row = item / HEAD_DIM4;
    let q_block = row / params.num_samples % params.num_q_blocks;
    let head = row / params.num_samples / params.num_q_blocks % params.num_q_heads;
    let batch = row / params.num_samples / params.num_q_blocks / params.num_q_heads;
    if batch >= params.batch_size {
        return;
    }
    let sampled = sampled_queries(q_block, row % params.num_samples);
    let query = q_block * params.block_size_q + sampled.first;
    var at = params.q_offset + batch * params.q_batch + query * params.q_seq + head * params.q_head + item % HEAD_DIM4;
    var sum = vec4<f32>();
    for (var i = 0u; i < sampled.count; i++) {
        sum += widen(q[at]);
        at += params.q_seq;
    }
    // A device's division may be off in the last bits; adding the remainder makes representable means exact.
    let count = vec4<f32>(f32(sampled.count));
    let mean = sum / count;
    // For an infinity the remainder would be inf - inf.
    let is_finite = (bitcast<vec4<u32>>(mean) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
    samples[item] = select(mean, mean + fma(-mean, count, sum) / count, is_finite) * params.scale;
}
