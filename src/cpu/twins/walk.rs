//! The keys that the rows of a workgroup go through, and the rule for the queries that see a key: the twins' counterpart of the shader
//! family `walk`, and the only place of the twins that decides this.

use core::ops::Range;

use crate::{AttentionPlan, HostBlockLists, Mask};

/// Keys in the order of the kernels. A place is a key's index in that order; in a range of keys it is the key itself.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) places: Range<u32>,
    /// The queries of the tile.
    queries: Range<u32>,
    seq_len_q: u32,
    seq_len_kv: u32,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// As `walk/range.wgsl`.
    Range(Mask),
    /// As `walk/selected.wgsl`.
    Selected(Selected),
}

/// Keys of blocks, then sinks, then the window.
#[derive(Clone, Debug)]
struct Selected {
    causal: bool,
    listed: Vec<u32>,
    num_sinks: u32,
    window_begin: u32,
    sink_size: u32,
    window_size: i64,
}

/// Which rows of a tile see the keys at some places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TileClass {
    /// No row sees any key.
    Empty,
    /// Some rows see some keys.
    Partial,
    /// All rows see all keys.
    Full,
}

impl Walk {
    /// The walk of some queries through all keys that the mask lets any of them see.
    pub(super) fn range(mask: Mask, [seq_len_q, seq_len_kv]: [u32; 2], queries: &Range<u32>) -> Self {
        let visible = |q_index: u32| mask.visible(q_index, seq_len_q, seq_len_kv);
        let start = visible(queries.start).start;
        let places = start..visible(queries.end - 1).end.max(start);
        Self { places, queries: queries.clone(), seq_len_q, seq_len_kv, kind: Kind::Range(mask) }
    }

    /// The walk of the queries `tile`, which belong to the query block that ends with query `block_end`.
    pub(super) fn new(
        plan: &AttentionPlan,
        blocks: Option<&HostBlockLists>,
        [batch, q_head, seq_len_kv]: [u32; 3],
        tile: &Range<u32>,
        block_end: u32,
    ) -> Self {
        let problem = plan.problem();
        let (shape, mask) = (problem.shape(), problem.mask());
        let seq_len_q = shape.seq_len_q;
        let (Some(selection), Some(lists)) = (problem.blocks(), blocks) else {
            return Self::range(mask, [seq_len_q, seq_len_kv], tile);
        };
        let position = |q_index: u32| i64::from(q_index) + i64::from(seq_len_kv) - i64::from(seq_len_q);
        let positions = [position(tile.start), position(tile.end - 1)];
        let causal = mask == Mask::Causal;
        let dense = selection.dense_below > 0 && position(block_end - 1) < i64::from(selection.dense_below);
        let window_size = if dense { 1 << 30 } else { i64::from(selection.window_size) };
        let set = selection.granularity.set_of_head(shape, q_head);
        let mut listed = Vec::new();
        if !dense && seq_len_kv > 0 && (positions[1] >= 0 || !causal) {
            for &start in lists.list(batch, set, tile.start / selection.block_size_q) {
                listed.extend(start.min(seq_len_kv)..start.min(seq_len_kv) + selection.block_size);
            }
        }
        let [num_sinks, window_begin, window_end] = if causal {
            let sinks = (positions[1] + 1 - window_size).clamp(0, selection.sink_size.into());
            let end = (positions[1] + 1).max(0);
            [sinks, (positions[0] + 1 - window_size).clamp(0, end), end]
        } else if dense {
            [0, 0, seq_len_kv.into()]
        } else {
            [0; 3]
        }
        .map(|n: i64| n as u32); // within the sequence
        let end = listed.len() as u32 + num_sinks + window_end - window_begin;
        let sink_size = selection.sink_size;
        let selected = Selected { causal, listed, num_sinks, window_begin, sink_size, window_size };
        Self { places: 0..end, queries: tile.clone(), seq_len_q, seq_len_kv, kind: Kind::Selected(selected) }
    }

    /// The same walk between two of its places.
    pub(super) fn part(&self, places: Range<u32>) -> Self {
        Self { places, ..self.clone() }
    }

    /// The key at a place.
    pub(super) fn key(&self, at: u32) -> u32 {
        match &self.kind {
            Kind::Range(_) => at,
            Kind::Selected(selected) => selected.key(at),
        }
    }

    /// Which queries of the tile see the `count` keys from a place on.
    pub(super) fn class(&self, at: u32, count: u32) -> TileClass {
        let places = || at..self.places.end.min(at + count);
        if self.is_full(at, count) {
            TileClass::Full
        } else if self.queries.clone().any(|q_index| places().any(|at| self.sees(at, q_index))) {
            TileClass::Partial
        } else {
            TileClass::Empty
        }
    }

    /// Whether the first and the last query see all keys, and so the queries between do. A kernel tests only the outermost keys, with
    /// the same result: lists are ascending.
    fn is_full(&self, at: u32, count: u32) -> bool {
        let section = |at: u32| match &self.kind {
            Kind::Range(_) => 0,
            Kind::Selected(selected) => {
                u32::from(at >= selected.listed.len() as u32)
                    + u32::from(at >= selected.listed.len() as u32 + selected.num_sinks)
            }
        };
        let ends = [self.queries.start, self.queries.end - 1];
        at + count <= self.places.end
            && section(at) == section(at + count - 1)
            && (at..at + count).all(|at| ends.iter().all(|&q_index| self.sees(at, q_index)))
    }

    /// Whether a query sees the key at a place.
    pub(super) fn sees(&self, at: u32, q_index: u32) -> bool {
        if at >= self.places.end {
            return false;
        }
        match &self.kind {
            Kind::Range(mask) => mask.visible(q_index, self.seq_len_q, self.seq_len_kv).contains(&at),
            Kind::Selected(selected) => {
                let key = selected.key(at);
                let distance =
                    i64::from(q_index) + i64::from(self.seq_len_kv) - i64::from(self.seq_len_q) - i64::from(key);
                let is_listed = (at as usize) < selected.listed.len();
                let is_sink = !is_listed && at < selected.listed.len() as u32 + selected.num_sinks;
                if is_listed && (key >= self.seq_len_kv || (selected.causal && key < selected.sink_size)) {
                    return false;
                }
                if !selected.causal {
                    return true;
                }
                if is_listed || is_sink {
                    distance >= selected.window_size
                } else {
                    (0..selected.window_size).contains(&distance)
                }
            }
        }
    }
}

impl Selected {
    fn key(&self, at: u32) -> u32 {
        let sinks = self.listed.len() as u32;
        match self.listed.get(at as usize) {
            Some(&key) => key,
            None if at < sinks + self.num_sinks => at - sinks,
            None => self.window_begin + at - sinks - self.num_sinks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_empty_partial_or_full() {
        let mut found = [0; 3];
        for mask in [Mask::Full, Mask::Causal, Mask::causal_at(2), Mask::sliding(3), Mask::around(1)] {
            for queries in [0..1, 0..8, 3..5] {
                // As wide as the keys, so that no row sees some of them.
                let walk = Walk { places: 0..12, ..Walk::range(mask, [8, 12], &queries) };
                for (at, count) in (0..12).flat_map(|at| (1..=12 - at).map(move |count| (at, count))) {
                    let mut seen = queries.clone().flat_map(|q| (at..at + count).map(move |key| (q, key)));
                    let sees = |(q, key): (u32, u32)| mask.visible(q, 8, 12).contains(&key);
                    let expected = match (seen.clone().all(sees), seen.any(sees)) {
                        (true, _) => TileClass::Full,
                        (false, true) => TileClass::Partial,
                        (false, false) => TileClass::Empty,
                    };
                    assert_eq!(walk.class(at, count), expected, "{mask} {queries:?} {at} {count}");
                    found[expected as usize] += 1;
                }
            }
        }
        assert!(found.iter().all(|&n| n > 20), "{found:?}");
    }
}
