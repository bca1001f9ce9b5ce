// Family `lengths`: the number of keys of a sequence. Here the problem's.
fn seq_len_kv_of(batch: u32) -> u32 {
    return params.seq_len_kv;
}
