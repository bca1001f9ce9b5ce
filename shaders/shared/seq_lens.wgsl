// The number of keys of a sequence: from the caller's buffer where there is one, never past the bound of the plan.
fn seq_len_kv_of(batch: u32) -> u32 {
    if HAS_SEQ_LENS {
        return min(seq_lens_kv[params.seq_lens_offset + batch], params.seq_len_kv);
    }
    return params.seq_len_kv;
}
