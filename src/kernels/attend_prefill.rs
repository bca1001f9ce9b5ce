//! Tiles of query rows against all the keys they see: `shaders/attend_prefill.wgsl`.

use super::{Binding, Kernel, own_kernel, params};

const BINDINGS: &[Binding] = &[Binding::read("q"), Binding::read("k"), Binding::read("v"), Binding::write("out")];

/// Tiles of query rows against all their keys.
pub static ATTEND_PREFILL: Kernel = own_kernel!("attend_prefill", BINDINGS);

/// Weights of `rows/matrix` are `2^(score - reference)`, where the reference lies `SHIFT` below a score of the row. It moves only when
/// a score passes it by more than `SLACK`; all in base 2.
pub(crate) const SLACK: f32 = 8.0;
pub(crate) const SHIFT: f32 = 7.0;

params! {
    /// The numbers of one attention call, shared by `attend_prefill`, `attend_decode` and `find_exponents`. Offsets and
    /// strides of q, k, v and out count vec4 elements.
    AttendParams {
        batch_size: u32,
        seq_len_q: u32,
        seq_len_kv: u32,
        num_rows: u32,
        num_q_heads: u32,
        group_size: u32,
        row_tiles: u32,
        num_splits: u32,
        window_left: i32,
        window_right: i32,
        scale: f32,
        q_offset: u32,
        q_batch: u32,
        q_seq: u32,
        q_head: u32,
        k_offset: u32,
        k_batch: u32,
        k_seq: u32,
        k_head: u32,
        v_offset: u32,
        v_batch: u32,
        v_seq: u32,
        v_head: u32,
        out_offset: u32,
        out_batch: u32,
        out_seq: u32,
        out_head: u32,
        heads_per_kv_head: u32,
        block_size_q: u32,
        tiles_per_q_block: u32,
        num_sets: u32,
        max_blocks: u32,
        indices_offset: u32,
        counts_offset: u32,
        sink_size: i32,
        window_size: i32,
        dense_below: i32,
        part_tiles: u32,
        exponent_parts: u32,
        partial_lse_at: u32,
        carried_at: u32,
        exponents_at: u32,
    }
}
