// Family `lengths`: the number of keys of a sequence. Here from the caller's buffer, at most the plan's.
@group(0) @binding(SEQ_LENS_KV_BINDING)    var<storage, read> seq_lens_kv: array<u32>; // [batch]
@group(0) @binding(SEQ_LENS_PLACE_BINDING) var<uniform>       seq_lens_place: SeqLensPlace;

// Where they begin, in elements.
struct SeqLensPlace {
    offset: u32,
}

fn seq_len_kv_of(batch: u32) -> u32 {
    return min(seq_lens_kv[seq_lens_place.offset + batch], params.seq_len_kv);
}
