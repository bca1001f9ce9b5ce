// The numbers of one merge. Offsets and strides of out count vec4 elements, as do those of partial_out.
struct MergeParams {
    num_parts: u32,
    num_rows: u32,
    seq_len_q: u32,
    num_q_heads: u32,
    parts_out_offset: u32,
    parts_lse_offset: u32,
    parts_lse_stride: u32,
    out_offset: u32,
    out_batch: u32,
    out_seq: u32,
    out_head: u32,
}
@group(0) @binding(PARAMS_BINDING) var<uniform> params: MergeParams;
