//! The keys that rows go through, in order, and the queries that see each key: the only place of the CPU path that decides this.

use super::lists::Lists;
use super::tiling::CpuTiling;
use crate::{AttentionShape, Mask};
use core::ops::Range;

/// Larger than any distance of two positions; its sum with a position still fits 32 bits.
const EVERYWHERE: i64 = 1 << 31;

/// Listed keys, then a range of neighbouring ones. Positions are those of the keys; query `i` sits at `i + offset`.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    order: Order,
    /// Sinks, then the keys of listed blocks past the sinks: ascending, up to the last key that the last query may take from a list.
    listed: Vec<u32>,
    /// A query at `p` attends to listed keys up to `p - behind`.
    behind: i64,
    /// The keys that any of the queries may see without a list.
    near: Range<usize>,
    /// A query at `p` attends to near keys above `p - window`, up to `p + ahead`.
    window: i64,
    ahead: i64,
    offset: i64,
}

/// The way in which a walk is cut. Decides only the last bits of a result.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// A range of keys: pieces of whole tiles.
    Range,
    /// Lists, sinks and window: even pieces, and even tiles, since gathered keys need no alignment.
    Listed,
}

/// A piece of a [`Walk`].
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    listed: &'a [u32],
    near: Range<usize>,
}

/// Keys of one tile.
#[derive(Clone, Debug)]
pub(super) enum TileKeys<'a> {
    /// Neighbours, read in place when they are f32.
    Run(Range<usize>),
    /// Any keys: their rows are gathered.
    List(&'a [u32]),
}

impl TileKeys<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Run(keys) => keys.len(),
            Self::List(keys) => keys.len(),
        }
    }

    pub(super) fn at(&self, index: usize) -> usize {
        match self {
            Self::Run(keys) => keys.start + index,
            Self::List(keys) => keys[index] as usize,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(|index| self.at(index))
    }
}

/// Which rows see the keys of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TileClass {
    /// No row sees any: the tile is passed over.
    Empty,
    /// Some rows see some of them.
    Partial,
    /// All rows see all of them: no mask is applied.
    Full,
}

/// The lengths of tiles.
#[derive(Clone, Copy, Debug)]
pub(super) enum TileLen {
    /// All of this length, except the last tile.
    Fixed(usize),
    /// At most this length and as even as possible: a short last tile would cost as much as a long one.
    Even(usize),
}

impl TileLen {
    fn of(self, num_keys: usize) -> usize {
        match self {
            Self::Fixed(len) => len,
            Self::Even(most) => num_keys.div_ceil(num_keys.div_ceil(most).max(1)).max(1),
        }
    }
}

impl Walk {
    /// The walk through all keys that the mask lets `queries` see.
    pub(super) fn range(shape: &AttentionShape, mask: Mask, seq_len_kv: u32, queries: &Range<usize>) -> Self {
        let (left, right) = mask.bounds(shape.seq_len_q, seq_len_kv);
        let offset = i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
        let [first, last] = ends(queries, offset);
        let clamp = |key: i64| key.clamp(0, seq_len_kv.into()) as usize;
        let start = left.map_or(0, |left| clamp(first - left));
        let end = right.map_or(seq_len_kv as usize, |right| clamp(last + right + 1));
        Self {
            order: Order::Range,
            listed: vec![],
            behind: 0,
            near: start..end.max(start),
            window: left.map_or(EVERYWHERE, |left| (left + 1).min(EVERYWHERE)),
            ahead: right.unwrap_or(EVERYWHERE),
            offset,
        }
    }

    /// The walk through the blocks, sinks and window of `queries`, which share a list.
    pub(super) fn listed(
        lists: &Lists<'_>,
        shape: &AttentionShape,
        mask: Mask,
        seq_len_kv: u32,
        queries: &Range<usize>,
        q_head: usize,
    ) -> Self {
        // The indices of a query and a head are u32.
        let (q_head, first_query) = (q_head as u32, queries.start as u32);
        let selection = lists.selection;
        // Validated: the mask is causal, or full without window and sinks.
        let whole = Self { order: Order::Listed, ..Self::range(shape, mask, seq_len_kv, queries) };
        if lists.is_dense(shape, seq_len_kv, first_query) {
            return whole;
        }
        let [first, last] = ends(queries, whole.offset);
        let clamp = |key: i64| key.clamp(0, seq_len_kv.into());
        let window = i64::from(selection.window_size);
        let (behind, near) = match mask.bounds(shape.seq_len_q, seq_len_kv) {
            (_, None) => (-EVERYWHERE, 0..0),
            (_, Some(_)) => (window, clamp(first + 1 - window) as usize..clamp(last + 1) as usize),
        };
        // Without a window a query may take keys up to its own position from the list.
        let end = clamp(last + 1 - behind) as u32;
        let mut listed: Vec<u32> = (0..selection.sink_size.min(end)).collect();
        for &start in lists.list(shape, q_head, first_query) {
            listed.extend(start.max(selection.sink_size)..end.min(start + selection.block_size));
        }
        let near = if window > 0 && near.start < near.end { near } else { 0..0 };
        Self { listed, behind, near, window, ahead: 0, ..whole }
    }

    fn len(&self) -> usize {
        self.listed.len() + self.near.len()
    }

    /// The queries that see a key of a tile of this walk. From one key of a tile to the next, neither bound decreases.
    pub(super) fn queries_of(&self, keys: &TileKeys<'_>, key: usize) -> Range<usize> {
        let at = |p: i64| (p - self.offset).max(0) as usize;
        match keys {
            TileKeys::List(_) => at(key as i64 + self.behind)..usize::MAX,
            TileKeys::Run(_) => at(key as i64 - self.ahead)..at(key as i64 + self.window),
        }
    }

    /// Which of some queries see the keys of a tile.
    pub(super) fn class(&self, keys: &TileKeys<'_>, q_indices: &Range<usize>) -> TileClass {
        let [first, last] = [0, keys.len() - 1].map(|index| self.queries_of(keys, keys.at(index)));
        if last.start <= q_indices.start && q_indices.end <= first.end {
            TileClass::Full
        } else if last.end <= q_indices.start || q_indices.end <= first.start {
            TileClass::Empty
        } else {
            TileClass::Partial
        }
    }

    /// Cuts the walk into at most about `wanted` pieces, at least one, in order; each is for `num_kv_heads` KV heads.
    pub(super) fn parts(&self, tiling: &CpuTiling, wanted: usize, num_kv_heads: usize) -> Vec<Part<'_>> {
        let (total, split_kv) = (self.len(), tiling.split_kv as usize);
        match self.order {
            Order::Range => {
                let [tile_kv, split_kv] = [tiling.tile_kv as usize, split_kv].map(|n| n.min(total).max(1));
                let num_parts = total.div_ceil(split_kv).clamp(1, wanted.max(1));
                let len = total.div_ceil(num_parts).next_multiple_of(tile_kv).max(1);
                let part = |i: usize| self.part(i * len..total.min((i + 1) * len));
                (0..total.div_ceil(len).max(1)).map(part).collect()
            }
            Order::Listed => {
                let len = total.div_ceil(wanted.max(1)).max(split_kv / num_kv_heads).max(1);
                let num_parts = total.div_ceil(len).max(1);
                let border = |part: usize| total * part / num_parts;
                (0..num_parts).map(|i| self.part(border(i)..border(i + 1))).collect()
            }
        }
    }

    fn part(&self, range: Range<usize>) -> Part<'_> {
        let num_listed = self.listed.len();
        let near = |at: usize| self.near.start + at.saturating_sub(num_listed);
        Part {
            listed: &self.listed[range.start.min(num_listed)..range.end.min(num_listed)],
            near: near(range.start)..near(range.end),
        }
    }

    /// The lengths of tiles whose keys may have to be gathered.
    pub(super) fn tile_len(&self, tile_kv: usize) -> TileLen {
        match self.order {
            Order::Range => TileLen::Fixed(tile_kv),
            Order::Listed => TileLen::Even(tile_kv),
        }
    }
}

impl<'a> Part<'a> {
    /// The length of the longest tile, given `tile_kv`.
    pub(super) fn longest_tile(&self, tile_kv: usize) -> usize {
        tile_kv.min(self.listed.len().max(self.near.len())).max(1)
    }

    /// The tiles, in order; none is empty.
    pub(super) fn tiles(&self, len: TileLen) -> impl Iterator<Item = TileKeys<'a>> + use<'a> {
        let (listed, near) = (self.listed, self.near.clone());
        let near_len = len.of(near.len());
        let run = move |start: usize| TileKeys::Run(start..near.end.min(start.saturating_add(near_len)));
        listed.chunks(len.of(listed.len())).map(TileKeys::List).chain(self.near.clone().step_by(near_len).map(run))
    }
}

/// Positions of the first and the last query; they fit 30 bits.
fn ends(queries: &Range<usize>, offset: i64) -> [i64; 2] {
    [queries.start, queries.end - 1].map(|query| query as i64 + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttentionShape = AttentionShape {
        batch_size: 1,
        seq_len_q: 8,
        seq_len_kv: 12,
        num_q_heads: 1,
        num_kv_heads: 1,
        head_dim: 4,
        head_dim_v: 4,
    };

    /// The class by definition, query by query and key by key; `Partial` may also stand for the other two.
    fn holds(mask: Mask, class: TileClass, keys: &Range<usize>, queries: &Range<usize>) -> bool {
        let sees = |query: usize, key: usize| {
            mask.visible(query as u32, SHAPE.seq_len_q, SHAPE.seq_len_kv).contains(&(key as u32))
        };
        let mut seen = queries.clone().flat_map(|query| keys.clone().map(move |key| (query, key)));
        match class {
            TileClass::Full => seen.all(|(query, key)| sees(query, key)),
            TileClass::Empty => !seen.any(|(query, key)| sees(query, key)),
            TileClass::Partial => true,
        }
    }

    #[test]
    fn tiles_are_empty_partial_or_full() {
        let masks = [
            Mask::Full,
            Mask::Causal,
            Mask::causal_at(2),
            Mask::sliding(3),
            Mask::around(1),
            Mask::Window { left: None, right: Some(2) },
            Mask::Window { left: Some(4), right: None },
        ];
        let mut found = [0; 3];
        for mask in masks {
            for queries in [0..1, 0..8, 3..5, 7..8] {
                let walk = Walk::range(&SHAPE, mask, SHAPE.seq_len_kv, &queries);
                for keys in (0..12).flat_map(|start| (start + 1..=12).map(move |end| start..end)) {
                    let class = walk.class(&TileKeys::Run(keys.clone()), &queries);
                    assert!(holds(mask, class, &keys, &queries), "{mask} {queries:?} {keys:?} {class:?}");
                    // A single query sees a single key or not.
                    let single = queries.len() == 1 && keys.len() == 1;
                    assert!(!single || class != TileClass::Partial, "{mask} {queries:?} {keys:?}");
                    found[class as usize] += 1;
                }
            }
        }
        assert!(found.iter().all(|&n| n > 20), "{found:?}");
    }

    #[test]
    fn tiles_of_parts_are_the_walk() {
        let lengths = [TileLen::Fixed(3), TileLen::Even(5)];
        for (order, len) in [Order::Range, Order::Listed].into_iter().flat_map(|o| lengths.map(|len| (o, len))) {
            let whole = Walk::range(&SHAPE, Mask::sliding(9), 12, &(5..8));
            let listed = vec![0, 2, 3, 7];
            let walk = Walk { order, listed: if matches!(order, Order::Listed) { listed } else { vec![] }, ..whole };
            let expected: Vec<usize> = walk.listed.iter().map(|&key| key as usize).chain(walk.near.clone()).collect();
            let tiling = CpuTiling { tile_q: 2, tile_kv: 2, split_kv: 3, stream_rows: 1 };
            for wanted in [0, 1, 3, 64] {
                let parts = walk.parts(&tiling, wanted, 1);
                let keys: Vec<usize> = parts
                    .iter()
                    .flat_map(|part| part.tiles(len))
                    .flat_map(|tile| tile.iter().collect::<Vec<_>>())
                    .collect();
                assert_eq!(keys, expected);
                assert!(parts.len() <= wanted.max(1), "{} parts of {wanted}", parts.len());
            }
        }
    }
}
