// The rows of a KV head in v.
fn rows_of_v(batch: u32, kv_head: u32) -> KeyRows {
    return key_rows_of(Strides(params.v_offset, params.v_batch, params.v_seq, params.v_head), batch, kv_head);
}
