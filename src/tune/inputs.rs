//! Inputs of candidates besides q, k and v.

use crate::{AttentionShape, BlockListSpec, Error, HostBlockLists, Result};

/// Checks that there are rows and keys to compute.
pub(super) fn check_sizes(shape: &AttentionShape) -> Result<()> {
    let sizes = [("batch_size", shape.batch_size), ("seq_len_q", shape.seq_len_q), ("seq_len_kv", shape.seq_len_kv)];
    match sizes.into_iter().find(|&(_, size)| size == 0) {
        Some((field, _)) => Err(Error::Invalid { field, value: 0, rule: "must be at least 1 to be measured" }),
        None => Ok(()),
    }
}

/// A shape with few sequences and KV heads and at most this many queries and keys, and different key lengths.
pub(super) fn reduced(shape: &AttentionShape, seq_len_q: u32, seq_len_kv: u32) -> (AttentionShape, Vec<u32>) {
    let num_kv_heads = shape.num_kv_heads.min(2);
    let shape = AttentionShape {
        batch_size: shape.batch_size.min(2),
        seq_len_q: shape.seq_len_q.min(seq_len_q),
        seq_len_kv: shape.seq_len_kv.min(seq_len_kv),
        num_q_heads: num_kv_heads * shape.group_size(),
        num_kv_heads,
        ..*shape
    };
    let lens = [shape.seq_len_kv - shape.seq_len_kv / 3, shape.seq_len_kv];
    (shape, lens[..shape.batch_size as usize].to_vec())
}

/// Full lists of blocks, spread evenly over the keys up to the last one that the queries may see.
pub(super) fn spread(blocks: &BlockListSpec, shape: &AttentionShape, seq_lens_kv: Option<&[u32]>) -> HostBlockLists {
    let mut lists = HostBlockLists::empty(blocks.indices_shape(shape));
    let [batch_size, num_sets, num_q_blocks, max_blocks] = lists.shape();
    for batch in 0..batch_size {
        let seq_len_kv = seq_lens_kv.map_or(shape.seq_len_kv, |lens| lens[batch as usize]);
        for set in 0..num_sets {
            for q_block in 0..num_q_blocks {
                let last = (q_block + 1).saturating_mul(blocks.block_size_q).min(shape.seq_len_q);
                let visible = (i64::from(seq_len_kv) - i64::from(shape.seq_len_q) + i64::from(last)).max(0);
                // At most seq_len_kv.
                let candidates = (visible as u32).div_ceil(blocks.block_size);
                let count = candidates.min(max_blocks);
                let block = |i: u32| (u64::from(i) * u64::from(candidates) / u64::from(count)) as u32;
                let list: Vec<u32> = (0..count).map(|i| block(i) * blocks.block_size).collect();
                lists.set_list(batch, set, q_block, &list);
            }
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Granularity, Mask};

    #[test]
    fn spread_lists_keep_the_rules() {
        let shape = AttentionShape {
            batch_size: 2,
            seq_len_q: 37,
            seq_len_kv: 211,
            num_q_heads: 4,
            num_kv_heads: 2,
            head_dim: 8,
            head_dim_v: 8,
        };
        for (block_size, max_blocks) in [(1, 300), (2, 16), (16, 3), (128, 1)] {
            let blocks = BlockListSpec {
                granularity: Granularity::KvHead,
                block_size_q: 16,
                block_size,
                max_blocks,
                sink_size: 4,
                window_size: 8,
                dense_below: 0,
            };
            blocks.validate(&shape, Mask::Causal).unwrap();
            for lens in [None, Some([211, 0]), Some([20, 131])] {
                let lens = lens.as_ref().map(<[u32; 2]>::as_slice);
                let lists = spread(&blocks, &shape, lens);
                lists.validate(&blocks, &shape, lens).unwrap();
                let full = lens.is_none().then(|| lists.list(1, 1, 2).len());
                assert!(full.is_none_or(|len| len == max_blocks.min(211u32.div_ceil(block_size)) as usize));
            }
        }
    }
}
