//! Which blocks of keys each query block attends to, as plain data.

use crate::{AttentionProblem, AttentionShape, Error, Mask, Result};

/// Entries of `block_indices` past the count: -1 as a signed number.
pub const PADDING: u32 = u32::MAX;

/// Which query heads share a list of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Granularity {
    /// Every query head has its own list. Heads of a group then read different keys and share no loads.
    QueryHead,
    /// The query heads of a KV head share one list.
    KvHead,
    /// All heads share one list.
    Layer,
}

impl Granularity {
    /// Every granularity.
    pub const ALL: [Self; 3] = [Self::QueryHead, Self::KvHead, Self::Layer];

    /// Lists for each query block of one sequence.
    #[must_use]
    pub const fn num_sets(self, shape: &AttentionShape) -> u32 {
        match self {
            Self::QueryHead => shape.num_q_heads,
            Self::KvHead => shape.num_kv_heads,
            Self::Layer => 1,
        }
    }

    /// Query heads that share a list.
    #[must_use]
    pub const fn heads_per_set(self, shape: &AttentionShape) -> u32 {
        match self {
            Self::QueryHead => 1,
            Self::KvHead => shape.group_size(),
            Self::Layer => shape.num_q_heads,
        }
    }

    /// The list that a query head uses.
    #[must_use]
    pub const fn set_of_head(self, shape: &AttentionShape, q_head: u32) -> u32 {
        q_head / self.heads_per_set(shape)
    }
}

impl core::fmt::Display for Granularity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::QueryHead => "query head",
            Self::KvHead => "KV head",
            Self::Layer => "layer",
        })
    }
}

/// The sizes and rules of block-sparse attention's lists. A selection provides its own
/// ([`SelectionProblem::blocks`](crate::SelectionProblem::blocks)); a caller with other lists fills it in.
///
/// Query `i` at position `p` attends to key `u <= p` exactly when one of three holds (HiP, InfiniteHiP: sinks, selected
/// blocks and a window, disjoint by definition):
///
/// 1. window: `p - u < window_size`;
/// 2. sink: `p - u >= window_size` and `u < sink_size`;
/// 3. selected: `p - u >= window_size`, `u >= sink_size`, and `u` lies in a listed block.
///
/// Without a causal mask ([`Mask::Full`]) there are neither window nor sinks: a query attends to the keys of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BlockListSpec {
    /// Which query heads share a list.
    pub granularity: Granularity,
    /// Queries that share a list: query `i` uses list `i / block_size_q`.
    pub block_size_q: u32,
    /// Keys of a block, from 1 to 128. A block may reach past the last key, or into the window; those keys do not count.
    pub block_size: u32,
    /// Room for entries in each list.
    pub max_blocks: u32,
    /// Number of first keys that every query attends to.
    pub sink_size: u32,
    /// Number of last keys, the query's own included, that every query attends to.
    pub window_size: u32,
    /// Query blocks whose last query is at a position below this attend to all their keys; their lists are not read.
    pub dense_below: u32,
}

crate::setters::setters!(BlockListSpec {
    with_granularity(granularity: Granularity)
    with_block_size_q(block_size_q: u32)
    with_block_size(block_size: u32)
    with_max_blocks(max_blocks: u32)
    with_sink_size(sink_size: u32)
    with_window_size(window_size: u32)
    with_dense_below(dense_below: u32)
});

impl BlockListSpec {
    /// Lists of up to `max_blocks` blocks of `block_size` keys, one for each query head and `block_size_q` queries. No sinks, no window,
    /// no dense query blocks.
    #[must_use]
    pub const fn new(block_size_q: u32, block_size: u32, max_blocks: u32) -> Self {
        let granularity = Granularity::QueryHead;
        Self { granularity, block_size_q, block_size, max_blocks, sink_size: 0, window_size: 0, dense_below: 0 }
    }
}

impl BlockListSpec {
    /// Query blocks of a sequence.
    #[must_use]
    pub const fn num_q_blocks(&self, shape: &AttentionShape) -> u32 {
        shape.seq_len_q.div_ceil(self.block_size_q)
    }

    /// `[batch, set, q_block, entry]` of `block_indices`; the first three axes are those of `block_counts`.
    #[must_use]
    pub const fn indices_shape(&self, shape: &AttentionShape) -> [u32; 4] {
        [shape.batch_size, self.granularity.num_sets(shape), self.num_q_blocks(shape), self.max_blocks]
    }

    /// Number of lists.
    #[must_use]
    pub fn num_lists(&self, shape: &AttentionShape) -> u64 {
        let [batch, sets, q_blocks, _] = self.indices_shape(shape).map(u64::from);
        batch * sets * q_blocks
    }

    /// Checks the rules that need no device.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field, its value and the rule.
    pub fn validate(&self, shape: &AttentionShape, mask: Mask) -> Result<()> {
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if self.block_size_q == 0 {
            return invalid("block_size_q", 0, "must be at least 1");
        }
        if self.block_size == 0 || self.block_size > 128 {
            return invalid("block_size", self.block_size, "must be from 1 to 128 keys");
        }
        if self.max_blocks == 0 {
            return invalid("max_blocks", 0, "must be at least 1");
        }
        for (field, value) in [
            ("block_size_q", self.block_size_q),
            ("sink_size", self.sink_size),
            ("window_size", self.window_size),
            ("dense_below", self.dense_below),
        ] {
            if value > AttentionProblem::MAX_SEQ_LEN {
                return invalid(field, value, "must be below 2^29, so that positions fit signed 32-bit arithmetic");
            }
        }
        // The walk through blocks, sinks and window counts its keys in 32 bits.
        if u64::from(self.max_blocks) * u64::from(self.block_size) > u64::from(AttentionProblem::MAX_SEQ_LEN) {
            return invalid("max_blocks", self.max_blocks, "max_blocks * block_size must be below 2^29");
        }
        if self.num_lists(shape).saturating_mul(self.max_blocks.into()) > u64::from(u32::MAX) {
            return invalid("max_blocks", self.max_blocks, "the entries of all lists must be fewer than 2^32");
        }
        match mask {
            Mask::Causal => Ok(()),
            Mask::Full => {
                for (field, value) in [("sink_size", self.sink_size), ("window_size", self.window_size)] {
                    if value != 0 {
                        return invalid(field, value, "must be 0 where the mask is not causal");
                    }
                }
                Ok(())
            }
            Mask::Window { .. } | Mask::CausalAt { .. } => {
                let rule = "selected blocks take a causal or a full mask; their window is `window_size`";
                Err(Error::Argument { argument: "mask", rule })
            }
        }
    }
}

/// Lists of blocks in host memory: the result of a selection, or a caller's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBlockLists {
    shape: [u32; 4],
    block_indices: Vec<u32>,
    block_counts: Vec<u32>,
}

impl HostBlockLists {
    /// Lists given as `block_indices` `[batch, set, q_block, max_blocks]`, the first key of each block, ascending, then [`PADDING`];
    /// and `block_counts` `[batch, set, q_block]`, the number of blocks. [`HostBlockLists::validate`] checks their contents.
    ///
    /// # Errors
    /// [`Error::Length`] when a list does not have as many elements as `shape` says.
    pub fn new(shape: [u32; 4], block_indices: Vec<u32>, block_counts: Vec<u32>) -> Result<Self> {
        let len = |axes: &[u32]| axes.iter().fold(1u64, |n, &axis| n.saturating_mul(axis.into()));
        for (tensor, expected, actual) in [
            ("block_indices", len(&shape), block_indices.len() as u64),
            ("block_counts", len(&shape[..3]), block_counts.len() as u64),
        ] {
            if expected != actual {
                return Err(Error::Length { tensor, expected, actual });
            }
        }
        Ok(Self { shape, block_indices, block_counts })
    }

    /// Empty lists.
    #[must_use]
    pub fn empty(shape: [u32; 4]) -> Self {
        let len = |axes: &[u32]| axes.iter().map(|&axis| axis as usize).product();
        Self { shape, block_indices: vec![PADDING; len(&shape)], block_counts: vec![0; len(&shape[..3])] }
    }

    /// `[batch, set, q_block, max_blocks]`.
    #[must_use]
    pub const fn shape(&self) -> [u32; 4] {
        self.shape
    }

    /// `[batch, set, q_block, max_blocks]`, padded with [`PADDING`].
    #[must_use]
    pub fn block_indices(&self) -> &[u32] {
        &self.block_indices
    }

    /// `[batch, set, q_block]`.
    #[must_use]
    pub fn block_counts(&self) -> &[u32] {
        &self.block_counts
    }

    /// The blocks of one list: first keys, ascending.
    ///
    /// # Panics
    /// When an index is out of range, as slices do.
    #[must_use]
    pub fn list(&self, batch: u32, set: u32, q_block: u32) -> &[u32] {
        let row = ((batch * self.shape[1] + set) * self.shape[2] + q_block) as usize;
        let max_blocks = self.shape[3] as usize;
        &self.block_indices[row * max_blocks..][..(self.block_counts[row] as usize).min(max_blocks)]
    }

    /// Replaces one list.
    ///
    /// # Panics
    /// When an index is out of range, or there are more blocks than the list has room for.
    pub fn set_list(&mut self, batch: u32, set: u32, q_block: u32, blocks: &[u32]) {
        let row = ((batch * self.shape[1] + set) * self.shape[2] + q_block) as usize;
        let max_blocks = self.shape[3] as usize;
        let to = &mut self.block_indices[row * max_blocks..][..max_blocks];
        to[..blocks.len()].copy_from_slice(blocks);
        to[blocks.len()..].fill(PADDING);
        self.block_counts[row] = blocks.len() as u32; // at most max_blocks, a u32
    }

    /// Checks the rules that block-sparse attention relies on: counts within bounds; first keys ascending, disjoint, and below the
    /// length of the sequence. `seq_lens_kv` is as in [`HostInputs`](crate::HostInputs).
    ///
    /// # Errors
    /// [`Error::Shape`], or [`Error::Blocks`] with the first list and entry that break a rule.
    pub fn validate(
        &self,
        selection: &BlockListSpec,
        shape: &AttentionShape,
        seq_lens_kv: Option<&[u32]>,
    ) -> Result<()> {
        let expected = selection.indices_shape(shape);
        if self.shape != expected {
            return Err(Error::Shape { tensor: "block_indices", expected, actual: self.shape });
        }
        let [batch_size, num_sets, num_q_blocks, max_blocks] = self.shape;
        for batch in 0..batch_size {
            let seq_len_kv = seq_lens_kv.map_or(shape.seq_len_kv, |lens| lens[batch as usize].min(shape.seq_len_kv));
            for set in 0..num_sets {
                for q_block in 0..num_q_blocks {
                    let row = ((batch * num_sets + set) * num_q_blocks + q_block) as usize;
                    let broken = |entry, value, rule| Err(Error::Blocks { batch, set, q_block, entry, value, rule });
                    let count = self.block_counts[row];
                    if count > max_blocks {
                        return broken(0, count, Self::COUNT_RULE);
                    }
                    let mut free = 0;
                    for (entry, &start) in (0..).zip(self.list(batch, set, q_block)) {
                        if start < free {
                            return broken(entry, start, Self::ORDER_RULE);
                        }
                        if start >= seq_len_kv {
                            return broken(entry, start, Self::RANGE_RULE);
                        }
                        free = start + selection.block_size;
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) const COUNT_RULE: &str = "a count must be at most max_blocks";
    pub(crate) const ORDER_RULE: &str = "blocks must be ascending and must not overlap";
    pub(crate) const RANGE_RULE: &str = "a block must begin below the length of its sequence";
}
