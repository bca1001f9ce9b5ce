//! What candidates compute on besides q, k and v: lists of blocks and key lengths.

use crate::bench::{output, read_words};
use crate::{AttentionShape, BlockSelection, Context, Error, HostBlocks, Result, SelectedBlocks, U32View};

/// Checks that there is something to compute.
pub(super) fn check_sizes(shape: &AttentionShape) -> Result<()> {
    let sizes = [("batch_size", shape.batch_size), ("seq_len_q", shape.seq_len_q), ("seq_len_kv", shape.seq_len_kv)];
    match sizes.into_iter().find(|&(_, size)| size == 0) {
        Some((field, _)) => Err(Error::Invalid { field, value: 0, rule: "must be at least 1 to be measured" }),
        None => Ok(()),
    }
}

/// Key lengths on a device.
pub(super) fn upload_lens(ctx: &Context, lens: &[u32]) -> Result<wgpu::Buffer> {
    let usage = wgpu::BufferUsages::STORAGE;
    ctx.scoped("uploading lengths", || ctx.upload("wattn.tune.lens", bytemuck::cast_slice(lens), usage))
}

/// As many blocks as a list holds, spread evenly over the keys up to the last that its queries may see.
pub(super) fn spread(blocks: &BlockSelection, shape: &AttentionShape, seq_lens_kv: Option<&[u32]>) -> HostBlocks {
    let mut lists = HostBlocks::empty(blocks.indices_shape(shape));
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

/// Lists in a device's memory.
pub(super) struct Lists {
    shape: [u32; 4],
    buffers: [wgpu::Buffer; 2],
}

impl Lists {
    /// Room for lists that a selection writes.
    pub(super) fn new(ctx: &Context, shape: [u32; 4]) -> Result<Self> {
        let [entries, lists] = lens(shape);
        let buffers = [output(ctx, "wattn.tune.lists", 4 * entries)?, output(ctx, "wattn.tune.lists", 4 * lists)?];
        Ok(Self { shape, buffers })
    }

    pub(super) fn upload(ctx: &Context, blocks: &HostBlocks) -> Result<Self> {
        let lists = Self::new(ctx, blocks.shape())?;
        ctx.scoped("uploading lists", || {
            for (buffer, words) in lists.buffers.iter().zip([blocks.block_indices(), blocks.block_counts()]) {
                ctx.queue().write_buffer(buffer, 0, bytemuck::cast_slice(words));
            }
        })?;
        Ok(lists)
    }

    pub(super) fn view(&self) -> SelectedBlocks<'_> {
        let ([indices, counts], [entries, lists]) = (&self.buffers, lens(self.shape));
        SelectedBlocks {
            block_indices: U32View::new(indices, 0, entries),
            block_counts: U32View::new(counts, 0, lists),
        }
    }

    /// Fills them with numbers that no list may hold, so that what a selection leaves out shows.
    pub(super) fn spoil(&self, ctx: &Context) -> Result<()> {
        ctx.scoped("spoiling lists", || {
            for buffer in &self.buffers {
                ctx.queue().write_buffer(buffer, 0, &vec![0xaa; buffer.size() as usize]);
            }
        })
    }

    pub(super) fn read(&self, ctx: &Context) -> Result<HostBlocks> {
        let [indices, counts] = self.buffers.each_ref().map(|buffer| read_words(ctx, buffer));
        HostBlocks::new(self.shape, indices?, counts?)
    }
}

/// Entries of all lists, and lists.
fn lens([batch_size, num_sets, num_q_blocks, max_blocks]: [u32; 4]) -> [u64; 2] {
    let lists = u64::from(batch_size) * u64::from(num_sets) * u64::from(num_q_blocks);
    [lists * u64::from(max_blocks), lists]
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
            let blocks = BlockSelection {
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
