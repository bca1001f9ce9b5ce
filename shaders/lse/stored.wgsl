// Family `lse`: the log-sum-exp of a row's scores. Here it is stored.
@group(0) @binding(LSE_BINDING)       var<storage, read_write> lse: array<f32>; // [batch, seq_len_q, num_q_heads]
@group(0) @binding(LSE_PLACE_BINDING) var<uniform>             lse_place: LsePlace;

// Where it lies, in elements.
struct LsePlace {
    offset: u32,
    batch: u32,
    seq: u32,
    head: u32,
}

fn put_lse(batch: u32, query: u32, head: u32, value: f32) {
    lse[lse_place.offset + batch * lse_place.batch + query * lse_place.seq + head * lse_place.head] = value;
}
