// Family `lse`: the log-sum-exp of a row's scores. Here it is stored.
@group(0) @binding(LSE_BINDING) var<storage, read_write> lse: array<f32>; // [batch, seq_len_q, num_q_heads]

fn put_lse(batch: u32, query: u32, head: u32, value: f32) {
    lse[params.lse_offset + batch * params.lse_batch + query * params.lse_seq + head * params.lse_head] = value;
}
