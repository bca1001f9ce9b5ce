// Family `lengths`: the number of keys of a sequence. Here that of the problem.
fn seq_len_kv_of(batch: u32) -> u32 {
    return params.seq_len_kv;
}
