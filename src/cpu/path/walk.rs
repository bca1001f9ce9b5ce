//! The keys that the rows of one query block attend to, in the order in which they are walked through.

use crate::{AttentionShape, BlockListSpec, Mask};
use core::ops::Range;

/// Farther than any position.
const EVERYWHERE: i64 = 1 << 40;

/// Sinks and listed blocks, then the window. Positions are those of the keys; query `i` sits at `i + offset`.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// Sinks, then the keys of the listed blocks past the sinks: ascending, and near enough for the last query.
    listed: Vec<u32>,
    /// A query at `p` attends to listed keys up to `p - behind`.
    behind: i64,
    /// The keys that the window of any of the queries may hold.
    near: Range<usize>,
    /// A query at `p` attends to near keys above `p - window`, up to `p + ahead`.
    window: i64,
    ahead: i64,
    offset: i64,
}

/// A piece of a [`Walk`].
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) listed: &'a [u32],
    pub(super) near: Range<usize>,
}

impl Walk {
    /// The walk of `queries`, which share the list `blocks`.
    pub(super) fn new(
        selection: &BlockListSpec,
        shape: &AttentionShape,
        mask: Mask,
        seq_len_kv: u32,
        queries: &Range<usize>,
        blocks: &[u32],
    ) -> Self {
        let offset = i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
        let [first, last] = [queries.start, queries.end - 1].map(|i| i as i64 + offset); // positions fit 30 bits
        let clamp = |key: i64| key.clamp(0, seq_len_kv.into()) as u32;
        let full = mask == Mask::Full;
        if is_dense(selection, shape, seq_len_kv, queries) {
            let (ahead, end) = if full { (EVERYWHERE, seq_len_kv) } else { (0, clamp(last + 1)) };
            return Self { listed: vec![], behind: 0, near: 0..end as usize, window: EVERYWHERE, ahead, offset };
        }
        let window = i64::from(selection.window_size);
        let (behind, near) = match full {
            true => (-EVERYWHERE, 0..0),
            false => (window, clamp(first + 1 - window) as usize..clamp(last + 1) as usize),
        };
        // Where there is no window, a query sees its own position at the nearest.
        let end = clamp(last.saturating_add(1) - behind);
        let mut listed: Vec<u32> = (0..selection.sink_size.min(end)).collect();
        for &start in blocks {
            listed.extend(start.max(selection.sink_size)..end.min(start + selection.block_size));
        }
        let near = if window > 0 && near.start < near.end { near } else { 0..0 };
        Self { listed, behind, near, window, ahead: 0, offset }
    }

    pub(super) fn len(&self) -> usize {
        self.listed.len() + self.near.len()
    }

    /// The queries that attend to a listed key.
    pub(super) fn queries_of_listed(&self, key: usize) -> Range<usize> {
        (key as i64 + self.behind - self.offset).max(0) as usize..usize::MAX
    }

    /// The queries that attend to a near key.
    pub(super) fn queries_of_near(&self, key: usize) -> Range<usize> {
        let at = |p: i64| (p - self.offset).max(0) as usize;
        at(key as i64 - self.ahead)..at(key as i64 + self.window)
    }

    /// Cuts the walk into pieces of about `len` keys, as even as they can be, which keep its order.
    pub(super) fn parts(&self, len: usize) -> Vec<Part<'_>> {
        let total = self.len();
        let num_parts = total.div_ceil(len.max(1)).max(1);
        let border = |part: usize| total * part / num_parts;
        let part = |i: usize| self.part(border(i)..border(i + 1));
        (0..num_parts).map(part).collect()
    }

    fn part(&self, range: Range<usize>) -> Part<'_> {
        let num_listed = self.listed.len();
        let near = |at: usize| self.near.start + at.saturating_sub(num_listed);
        Part {
            listed: &self.listed[range.start.min(num_listed)..range.end.min(num_listed)],
            near: near(range.start)..near(range.end),
        }
    }
}

/// Whether `queries` attend to all their keys, whatever their list says.
pub(super) fn is_dense(
    selection: &BlockListSpec,
    shape: &AttentionShape,
    seq_len_kv: u32,
    queries: &Range<usize>,
) -> bool {
    let block_size_q = selection.block_size_q as usize;
    let block = queries.start / block_size_q;
    let end = (shape.seq_len_q as usize).min((block + 1) * block_size_q) as i64;
    let p_max = end - 1 + i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
    selection.dense_below > 0 && p_max < selection.dense_below.into()
}
