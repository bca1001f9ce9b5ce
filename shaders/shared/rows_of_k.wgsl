// The rows of a KV head in k, of kernels whose numbers have k's strides.
fn rows_of_k(batch: u32, kv_head: u32) -> KeyRows {
    return key_rows_of(Strides(params.k_offset, params.k_batch, params.k_seq, params.k_head), batch, kv_head);
}
