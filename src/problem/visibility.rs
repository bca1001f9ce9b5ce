//! Numbers of keys that queries see: costs, benchmarks and reports ask here instead of interpreting masks and lists themselves.

use core::ops::Range;

use crate::{AttentionProblem, BlockListSpec, Mask};

impl AttentionProblem {
    /// The keys that the mask lets a query see, with as many keys as the shape has. Lists of blocks leave some of them out.
    #[must_use]
    pub fn visible(&self, q_index: u32) -> Range<u32> {
        self.mask.visible(q_index, self.shape.seq_len_q, self.shape.seq_len_kv)
    }

    /// The number of keys that a query sees, with as many keys as the shape has; with lists of blocks at most: a full list, the sinks and
    /// the window.
    ///
    /// ```
    /// use wattn::{AttentionProblem, AttentionShape, DType, Mask};
    /// let shape = AttentionShape {
    ///     batch_size: 1, seq_len_q: 3, seq_len_kv: 5, num_q_heads: 1, num_kv_heads: 1, head_dim: 8, head_dim_v: 8,
    /// };
    /// let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
    /// assert_eq!([0, 1, 2].map(|query| problem.keys_seen(query)), [3, 4, 5]);
    /// ```
    #[must_use]
    pub fn keys_seen(&self, q_index: u32) -> u64 {
        let visible = self.visible(q_index).len() as u64;
        match &self.blocks {
            Some(blocks) if !blocks.is_dense(self.block_end(blocks, q_index)) => visible.min(blocks.most_keys()),
            Some(_) | None => visible,
        }
    }

    /// Position of the last query of a query's block.
    fn block_end(&self, blocks: &BlockListSpec, q_index: u32) -> i64 {
        let end = (q_index / blocks.block_size_q + 1).saturating_mul(blocks.block_size_q).min(self.shape.seq_len_q);
        i64::from(end) - 1 + i64::from(self.shape.seq_len_kv) - i64::from(self.shape.seq_len_q)
    }

    /// The most keys that a tile of `tile_q` rows of the queries `first` to `last` walks.
    pub(crate) fn keys_walked(&self, [first, last]: [u32; 2], tile_q: u32) -> u64 {
        let [first, last] = [first, last].map(|query| self.visible(query));
        match &self.blocks {
            Some(blocks) => self.listed_keys_walked(blocks, last.end.into(), tile_q),
            None => last.end.saturating_sub(first.start).into(),
        }
    }

    /// The most keys that any tile of `tile_q` rows of `queries` neighbouring queries walks.
    pub(crate) fn most_keys_walked(&self, queries: u64, tile_q: u32) -> u64 {
        let seq_len_kv = u64::from(self.shape.seq_len_kv);
        match &self.blocks {
            Some(blocks) => self.listed_keys_walked(blocks, seq_len_kv, tile_q),
            None => self.window().map_or(seq_len_kv, |window| (window + queries - 1).min(seq_len_kv)),
        }
    }

    /// The most keys that a query sees where its mask is a window closed on both sides; `None` for other masks.
    pub(crate) fn window(&self) -> Option<u64> {
        match self.mask.bounds(self.shape.seq_len_q, self.shape.seq_len_kv) {
            (Some(left), Some(right)) => Some((left + right) as u64 + 1),
            (Some(_), None) | (None, Some(_) | None) => None,
        }
    }

    /// The most keys of a walk through lists whose last row sees `visible` keys.
    fn listed_keys_walked(&self, blocks: &BlockListSpec, visible: u64, tile_q: u32) -> u64 {
        let listed = u64::from(blocks.max_blocks) * u64::from(blocks.block_size);
        let (near, dense) = match self.mask {
            Mask::Causal => {
                let window = u64::from(blocks.window_size) + u64::from(tile_q);
                (u64::from(blocks.sink_size) + window.min(visible), visible.min(blocks.dense_below.into()))
            }
            // Blocks that are dense at some length see all keys. `validate` rejects the other masks with lists.
            Mask::Full | Mask::Window { .. } | Mask::CausalAt { .. } => {
                (0, if blocks.dense_below > 0 { self.shape.seq_len_kv.into() } else { 0 })
            }
        };
        (listed + near).max(dense)
    }
}

/// A range of keys that a query sees, and its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeenKeys {
    /// Sinks, window, or all keys of a dense query: independent of the list.
    Always(Range<u32>),
    /// Keys of a listed block.
    Listed(Range<u32>),
}

impl SeenKeys {
    /// Whether the query sees them because of its list.
    #[must_use]
    pub const fn is_listed(&self) -> bool {
        matches!(self, Self::Listed(_))
    }

    /// The keys.
    #[must_use]
    pub const fn keys(&self) -> &Range<u32> {
        match self {
            Self::Always(keys) | Self::Listed(keys) => keys,
        }
    }
}

impl BlockListSpec {
    /// Keys of `num_blocks` listed blocks, the sinks and the window: the most that a query attends to, unless it is dense.
    #[must_use]
    pub fn keys_with(&self, num_blocks: u32) -> u64 {
        let listed = u64::from(num_blocks) * u64::from(self.block_size);
        listed + u64::from(self.sink_size) + u64::from(self.window_size)
    }

    /// [`keys_with`](Self::keys_with) a full list.
    pub(crate) fn most_keys(&self) -> u64 {
        self.keys_with(self.max_blocks)
    }

    /// The most keys that a walk of few rows goes through, dense rows included.
    pub(crate) fn most_keys_of_any(&self) -> u64 {
        self.most_keys().max(self.dense_below.into())
    }

    /// Whether a query block whose last query is at `p_max` attends to all its keys and ignores its list.
    pub(crate) const fn is_dense(&self, p_max: i64) -> bool {
        self.dense_below > 0 && p_max < self.dense_below as i64
    }

    /// The disjoint ranges of keys that the query at `position` sees under a causal mask, given its query block's list and the position
    /// `p_max` of the block's last query. Ranges may be empty.
    #[must_use]
    pub fn seen_keys(&self, list: &[u32], position: u32, p_max: u32) -> Vec<SeenKeys> {
        if self.is_dense(p_max.into()) {
            return vec![SeenKeys::Always(0..position + 1)];
        }
        // Keys from here on lie in the window.
        let window = (position + 1).saturating_sub(self.window_size);
        let sinks = self.sink_size.min(window);
        let mut ranges = vec![SeenKeys::Always(0..sinks), SeenKeys::Always(window..position + 1)];
        for &block in list {
            let keys = block.max(sinks)..(block + self.block_size).min(window);
            if !keys.is_empty() {
                ranges.push(SeenKeys::Listed(keys));
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttentionShape, DType, Granularity};

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
    fn ranges_are_disjoint_and_say_why() {
        use SeenKeys::{Always, Listed};
        let selection = BlockListSpec { max_blocks: 4, dense_below: 8, ..SELECTION };
        // The first block reaches into the sinks, the last one into the window.
        assert_eq!(
            selection.seen_keys(&[4, 12, 16], 23, 23),
            [Always(0..6), Always(19..24), Listed(6..8), Listed(12..16), Listed(16..19)]
        );
        // Everything lies in the window.
        assert_eq!(selection.seen_keys(&[0], 3, 11), [Always(0..0), Always(0..4)]);
        assert_eq!(selection.seen_keys(&[], 5, 7), [Always(0..6)]);
    }

    #[test]
    fn walks_are_as_long_as_the_keys_that_some_query_sees() {
        for mask in [
            Mask::Full,
            Mask::Causal,
            Mask::causal_at(3),
            Mask::sliding(4),
            Mask::Window { left: Some(3), right: None },
        ] {
            let problem = AttentionProblem::new(SHAPE, DType::F32).with_mask(mask);
            for (first, last) in [(0, 0), (0, 23), (7, 12)] {
                let seen = |key: &u32| (first..=last).any(|query| problem.visible(query).contains(key));
                let expected = (0..SHAPE.seq_len_kv).filter(seen).count() as u64;
                assert_eq!(problem.keys_walked([first, last], 64), expected, "{mask}");
                assert!(expected <= problem.most_keys_walked(u64::from(last - first + 1), 64), "{mask}");
            }
        }
        let window = AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::around(2));
        assert_eq!((window.window(), window.most_keys_walked(3, 64)), (Some(5), 7));
    }
}
