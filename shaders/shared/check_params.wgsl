// The numbers of one check of lists of blocks. Offsets count elements.
struct CheckParams {
    seq_len_kv: u32,
    max_blocks: u32,
    block_size: u32,
    lists_per_batch: u32,
    num_places: u32,
    indices_offset: u32,
    counts_offset: u32,
}
@group(0) @binding(PARAMS_BINDING) var<uniform> params: CheckParams;
