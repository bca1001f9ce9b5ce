// Family `lengths`: the number of keys of a sequence. Here from the caller's buffer, at most the plan's.
@group(0) @binding(SEQ_LENS_KV_BINDING) var<storage, read> seq_lens_kv: array<u32>; // [batch]

fn seq_len_kv_of(batch: u32) -> u32 {
    return min(seq_lens_kv[params.seq_lens_offset + batch], params.seq_len_kv);
}
