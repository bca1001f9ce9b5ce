//! The keys that a row sees, key by key.

use crate::{AttentionProblem, BlockListSpec, Granularity, HostBlockLists, Mask};

/// The rule for the keys that a row of one sequence sees.
pub(super) struct Sight<'a> {
    pub(super) problem: &'a AttentionProblem,
    /// Used where the problem takes lists.
    pub(super) blocks: Option<&'a HostBlockLists>,
    pub(super) seq_len_kv: u32,
}

impl Sight<'_> {
    /// Whether the row `[batch, q_index, q_head]` sees a key of its sequence.
    pub(super) fn sees(&self, row: [u32; 3], key: u32) -> bool {
        match (&self.problem.blocks, self.blocks) {
            (Some(selection), Some(blocks)) => self.sees_selected(selection, blocks, row, key),
            (None, _) | (_, None) => self.sees_masked(row[1], key),
        }
    }

    fn position(&self, q_index: u32) -> i64 {
        i64::from(q_index) + i64::from(self.seq_len_kv) - i64::from(self.problem.shape.seq_len_q)
    }

    fn sees_masked(&self, q_index: u32, key: u32) -> bool {
        let (key, position) = (i64::from(key), self.position(q_index));
        match self.problem.mask {
            Mask::Full => true,
            Mask::Causal => key <= position,
            Mask::Window { left, right } => {
                left.is_none_or(|left| key >= position - i64::from(left))
                    && right.is_none_or(|right| key <= position + i64::from(right))
            }
            Mask::CausalAt { first } => key <= i64::from(first) + i64::from(q_index),
        }
    }

    /// The three rules of [`BlockListSpec`].
    fn sees_selected(&self, selection: &BlockListSpec, blocks: &HostBlockLists, row: [u32; 3], key: u32) -> bool {
        let ([batch, q_index, q_head], shape) = (row, self.problem.shape());
        let set = match selection.granularity {
            Granularity::QueryHead => q_head,
            Granularity::KvHead => q_head / (shape.num_q_heads / shape.num_kv_heads),
            Granularity::Layer => 0,
        };
        let q_block = q_index / selection.block_size_q;
        let starts = blocks.list(batch, set, q_block);
        let last_query = shape.seq_len_q.min((q_block + 1) * selection.block_size_q) - 1;
        let dense = selection.dense_below > 0 && self.position(last_query) < selection.dense_below.into();
        let distance = self.position(q_index) - i64::from(key);
        // Lists ascend and blocks do not overlap, so only the last block that begins at or before the key can hold it.
        let before = starts.partition_point(|&start| start <= key);
        let listed = before > 0 && key - starts[before - 1] < selection.block_size;
        match self.problem.mask {
            Mask::Full => dense || listed,
            Mask::Causal => {
                let window = distance < selection.window_size.into();
                let sink = key < selection.sink_size;
                distance >= 0 && (dense || window || sink || listed)
            }
            Mask::Window { .. } | Mask::CausalAt { .. } => unreachable!("lists go with causal and full masks only"),
        }
    }
}

/// The keys that a row attends to, ascending, each once, by the three rules of [`BlockListSpec`]. `None` where the problem has no lists.
///
/// # Panics
/// When an index is out of range, or the lists do not belong to the problem.
#[must_use]
pub fn attended_keys(
    problem: &AttentionProblem,
    seq_len_kv: u32,
    blocks: &HostBlockLists,
    batch: u32,
    q_index: u32,
    q_head: u32,
) -> Vec<u32> {
    if problem.blocks.is_none() {
        return Vec::new();
    }
    let sight = Sight { problem, blocks: Some(blocks), seq_len_kv };
    (0..seq_len_kv).filter(|&key| sight.sees([batch, q_index, q_head], key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttentionShape, DType};

    const SHAPE: AttentionShape = AttentionShape {
        batch_size: 1,
        seq_len_q: 24,
        seq_len_kv: 40,
        num_q_heads: 1,
        num_kv_heads: 1,
        head_dim: 4,
        head_dim_v: 4,
    };

    const SELECTION: BlockListSpec = BlockListSpec {
        granularity: Granularity::Layer,
        block_size_q: 5,
        block_size: 4,
        max_blocks: 3,
        sink_size: 6,
        window_size: 5,
        dense_below: 23,
    };

    #[test]
    fn a_query_sees_as_many_keys_as_the_oracle_lists() {
        let problem = AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::Causal).with_blocks(SELECTION);
        let mut blocks = HostBlockLists::empty(SELECTION.indices_shape(&SHAPE));
        // Blocks within the sinks, separate ones, and one that reaches into the window of some queries.
        (0..5).for_each(|q_block| blocks.set_list(0, 0, q_block, &[4, 12, 30]));
        let mut most = 0;
        for query in 0..SHAPE.seq_len_q {
            let position = query + SHAPE.seq_len_kv - SHAPE.seq_len_q;
            let last = SHAPE.seq_len_q.min((query / 5 + 1) * 5) - 1 + SHAPE.seq_len_kv - SHAPE.seq_len_q;
            let seen = SELECTION.seen_keys(blocks.list(0, 0, query / 5), position, last);
            let mut keys: Vec<u32> = seen.iter().flat_map(|seen| seen.keys().clone()).collect();
            keys.sort_unstable();
            assert_eq!(keys, attended_keys(&problem, SHAPE.seq_len_kv, &blocks, 0, query, 0), "query {query}");
            assert!(keys.len() as u64 <= problem.keys_seen(query), "query {query}");
            let full_list = if last < SELECTION.dense_below { u64::MAX } else { 3 * 4 + 6 + 5 };
            assert_eq!(problem.keys_seen(query), full_list.min(u64::from(position) + 1), "query {query}");
            assert!(problem.keys_seen(query) <= problem.most_keys_walked(1, 1));
            most = most.max(keys.len());
        }
        assert!(most < 40);
    }
}
