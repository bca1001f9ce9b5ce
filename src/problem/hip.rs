//! HiP: a beam search through a tree of keys for each block of queries.

use super::selector::{QuerySampling, Selector, SelectorStep};
use super::{BlockListSpec, Granularity, SelectionProblem};
use crate::{AttentionShape, Error, Mask, Result};

/// The key that stands for a branch of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Representative {
    /// The middle one. Where scores of keys differ the more the farther apart they are, the half whose middle scores
    /// higher is the likelier one to hold the best key (HiP, section 3).
    #[default]
    Center,
    /// The first one.
    First,
    /// The last one.
    Last,
}

/// The boundaries of the first round's groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum GroupBounds {
    /// At `floor(num_blocks * j / num_groups)`: as even as possible.
    #[default]
    Even,
    /// Rounded down to multiples of `ceil(2^floor(log2(num_blocks)) / num_groups)`, except for the end of the last group. They rarely move
    /// while the context grows, so that the lists of successive decode steps stay alike. Empty groups are dropped.
    Aligned,
}

/// HiP (*A Training-free Sub-quadratic Cost Transformer Model Serving Framework with Hierarchically Pruned Attention*,
/// section 3): for each query block the keys between sinks and window are cut into `top_k / block_size_k` groups of
/// blocks. Each round halves every group, scores the halves by one representative block, and keeps the best, until the
/// groups are single blocks: `log2(keys / top_k)` rounds, `O(T log T)` in all.
///
/// A block's score is the largest `q·k` over sampled queries and keys. Candidates rank by score, then by position. The first few
/// layers of a model (3 or 4) should stay dense, and perhaps the last queries of a prompt: the caller decides this by not selecting there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Hip {
    /// Keys selected for a query block: a multiple of `block_size_k`.
    pub top_k: u32,
    /// Queries that share a list.
    pub block_size_q: u32,
    /// Every `stride_q`-th query of a block is scored, the last of each stride.
    pub stride_q: u32,
    /// Keys of a block, from 1 to 128.
    pub block_size_k: u32,
    /// Every `stride_k`-th key of a block is scored, the last of each stride.
    pub stride_k: u32,
    /// First keys that are always attended to: a multiple of `block_size_k`.
    pub sink_size: u32,
    /// Last keys that are always attended to: a multiple of `block_size_k`.
    pub window_size: u32,
    /// The block that stands for a group.
    pub representative: Representative,
    /// The boundaries of the first groups.
    pub group_bounds: GroupBounds,
    /// Decode steps that use one list, at least 1: keys that leave the window before the next refresh are candidates too.
    pub refresh_interval: u32,
}

crate::setters::setters!(Hip {
    with_top_k(top_k: u32)
    with_block_size_q(block_size_q: u32)
    with_stride_q(stride_q: u32)
    with_block_size_k(block_size_k: u32)
    with_stride_k(stride_k: u32)
    with_sink_size(sink_size: u32)
    with_window_size(window_size: u32)
    with_representative(representative: Representative)
    with_group_bounds(group_bounds: GroupBounds)
    with_refresh_interval(refresh_interval: u32)
});

impl Hip {
    /// The paper's settings for prefill.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            top_k: 512,
            block_size_q: 64,
            stride_q: 2,
            block_size_k: 2,
            stride_k: 1,
            sink_size: 16,
            window_size: 256,
            representative: Representative::Center,
            group_bounds: GroupBounds::Even,
            refresh_interval: 1,
        }
    }
}

impl Default for Hip {
    fn default() -> Self {
        Self::new()
    }
}

impl Hip {
    /// The paper's settings for decoding: a refresh every eighth step, and groups that rarely move.
    #[must_use]
    pub fn decode() -> Self {
        Self { group_bounds: GroupBounds::Aligned, refresh_interval: 8, ..Self::default() }
    }

    /// Keys of a block that are scored.
    pub(crate) const fn keys_per_block(&self) -> u32 {
        self.block_size_k / self.stride_k
    }

    /// Entries of a list.
    #[must_use]
    pub const fn max_blocks(&self) -> u32 {
        self.top_k / self.block_size_k
    }

    fn check(&self, mask: Mask) -> Result<()> {
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        for (field, value) in [
            ("top_k", self.top_k),
            ("block_size_q", self.block_size_q),
            ("stride_q", self.stride_q),
            ("block_size_k", self.block_size_k),
            ("stride_k", self.stride_k),
            ("refresh_interval", self.refresh_interval),
        ] {
            if value == 0 {
                return invalid(field, 0, "must be at least 1");
            }
        }
        if self.block_size_k > 128 {
            return invalid("block_size_k", self.block_size_k, "must be at most 128 keys");
        }
        for (field, value) in [("top_k", self.top_k), ("sink_size", self.sink_size), ("window_size", self.window_size)]
        {
            if !value.is_multiple_of(self.block_size_k) {
                return invalid(field, value, "must be a multiple of block_size_k");
            }
        }
        if self.top_k > 1 << 20 {
            return invalid("top_k", self.top_k, "must be at most 2^20 keys");
        }
        if self.stride_q > self.block_size_q {
            return invalid("stride_q", self.stride_q, "must be at most block_size_q");
        }
        if self.stride_k > self.block_size_k {
            return invalid("stride_k", self.stride_k, "must be at most block_size_k");
        }
        if mask == Mask::Full && self.refresh_interval > 1 {
            let rule = "must be 1 where the mask is not causal: there is no decoding";
            return invalid("refresh_interval", self.refresh_interval, rule);
        }
        Ok(())
    }
}

impl Selector for Hip {
    fn name(&self) -> &str {
        "HiP"
    }

    fn lists(&self, _: &AttentionShape, granularity: Granularity) -> BlockListSpec {
        BlockListSpec::new(self.block_size_q, self.block_size_k, self.max_blocks())
            .with_granularity(granularity)
            .with_sink_size(self.sink_size)
            .with_window_size(self.window_size)
    }

    /// None: it has kernels of its own.
    fn steps(&self, _: &SelectionProblem) -> Vec<SelectorStep> {
        Vec::new()
    }

    fn validate(&self, mask: Mask) -> Result<()> {
        self.check(mask)
    }

    fn refresh_interval(&self, _: usize) -> u32 {
        self.refresh_interval
    }

    fn crossover(&self, seq_len_q: u32) -> u32 {
        if seq_len_q < self.block_size_q { 6144 } else { 4096 }
    }

    fn keys_kept(&self, _: &SelectionProblem) -> u32 {
        self.top_k
    }

    fn sampling(&self, _: usize) -> QuerySampling {
        QuerySampling::Stride(self.stride_q)
    }

    fn key_stride(&self) -> u32 {
        self.stride_k
    }

    fn num_probes(&self, shape: &AttentionShape) -> [u64; 2] {
        let keys = u64::from(shape.seq_len_kv);
        let candidates = keys.saturating_sub(u64::from(self.sink_size + self.window_size));
        let samples = u64::from(self.block_size_q.min(shape.seq_len_q).div_ceil(self.stride_q));
        if candidates <= u64::from(self.top_k) {
            return [0, samples]; // all fit, none is scored
        }
        // Groups of blocks are halved until they are single blocks.
        let rounds = candidates.div_ceil(self.top_k.into()).next_power_of_two().ilog2();
        let keys_per_block = u64::from(self.keys_per_block());
        [2 * u64::from(self.max_blocks()) * keys_per_block * u64::from(rounds), samples]
    }
}
