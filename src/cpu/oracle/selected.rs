//! Block-sparse attention by its definition, in f64.

use crate::{AttentionProblem, Granularity, HostBlockLists, Mask};

/// The keys that a row attends to, ascending, each once: the three rules of [`BlockListSpec`](crate::BlockListSpec),
/// key by key. None where the problem has no lists.
///
/// # Panics
/// When an index is out of range, or the lists are not those of the problem.
#[must_use]
pub fn attended_keys(
    problem: &AttentionProblem,
    seq_len_kv: u32,
    blocks: &HostBlockLists,
    batch: u32,
    q_index: u32,
    q_head: u32,
) -> Vec<u32> {
    let Some(selection) = problem.blocks else { return Vec::new() };
    let shape = problem.shape();
    let set = match selection.granularity {
        Granularity::QueryHead => q_head,
        Granularity::KvHead => q_head / (shape.num_q_heads / shape.num_kv_heads),
        Granularity::Layer => 0,
    };
    let q_block = q_index / selection.block_size_q;
    let starts = blocks.list(batch, set, q_block);

    let position = |query: u32| i64::from(query) + i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
    let last_query = shape.seq_len_q.min((q_block + 1) * selection.block_size_q) - 1;
    let dense = selection.dense_below > 0 && position(last_query) < selection.dense_below.into();
    let attends = |key: u32| {
        let distance = position(q_index) - i64::from(key);
        // Lists ascend and blocks do not overlap, so that only the last one that begins at or before the key can hold it.
        let before = starts.partition_point(|&start| start <= key);
        let listed = before > 0 && key - starts[before - 1] < selection.block_size;
        if problem.mask == Mask::Full {
            return dense || listed;
        }
        let window = distance < selection.window_size.into();
        let sink = key < selection.sink_size;
        distance >= 0 && (dense || window || sink || listed)
    };
    (0..seq_len_kv).filter(|&key| attends(key)).collect()
}
