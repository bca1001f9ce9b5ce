//! Samples of query blocks: `shaders/sample_queries.wgsl`.

use super::{Binding, Kernel, own_kernel, params};
use crate::shader::Constant;

const BINDINGS: &[Binding] = &[Binding::read("q"), Binding::write("samples")];

/// Samples of query blocks, for the scores of a selection.
pub static SAMPLE_QUERIES: Kernel = own_kernel!("sample_queries", BINDINGS);

/// Invocations of a workgroup, each with four columns of a sample.
pub(crate) const WORKGROUP_SIZE: u32 = 64;

/// Values of `representative`.
pub(crate) const CENTER: u32 = 0;
pub(crate) const FIRST: u32 = 1;
pub(crate) const LAST: u32 = 2;

pub(super) const CONSTANTS: &[Constant] = &[Constant::u32("CENTER", CENTER), Constant::u32("FIRST", FIRST)];

params! {
    /// The numbers of one dispatch of a selection that the kernels of all methods read. Offsets and strides of q and k count vec4
    /// elements, others elements.
    SelectParams {
        batch_size: u32,
        seq_len_q: u32,
        seq_len_kv: u32,
        num_q_heads: u32,
        group_size: u32,
        num_sets: u32,
        heads_per_set: u32,
        num_q_blocks: u32,
        block_size_q: u32,
        num_samples: u32,
        stride_q: u32,
        scale: f32,
        q_offset: u32,
        q_batch: u32,
        q_seq: u32,
        q_head: u32,
        k_offset: u32,
        k_batch: u32,
        k_seq: u32,
        k_head: u32,
        sink_size: i32,
        candidate_window: i32,
        dense_below: i32,
        representative: u32,
        max_blocks: u32,
        indices_offset: u32,
        counts_offset: u32,
    }
}
