//! A few query rows against many keys, as in decoding: every key and value is read once, in the order of memory, for
//! all heads. The time is that of reading k and v.

use super::sequence::{Partial, Sequence, as_f32, widen};
use super::simd::{FLOOR, HIDDEN, SoftmaxRow, accumulate, dot};
use crate::Element;
use core::ops::Range;
use pulp::{Simd, WithSimd};

/// Attention of every row of the sequence over `keys`, `tile_kv` keys at a time.
///
/// The rows of the result are `[num_kv_heads, seq_len_q, group_size]`.
pub(super) fn attend_stream<T: Element>(sequence: &Sequence<'_, T>, keys: Range<usize>, tile_kv: usize) -> Partial {
    let shape = sequence.shape;
    let [seq_len_q, num_q_heads, num_kv_heads] =
        [shape.seq_len_q, shape.num_q_heads, shape.num_kv_heads].map(|n| n as usize);
    let [dim, dim_v] = [shape.head_dim, shape.head_dim_v].map(|n| n as usize);
    let group = shape.group_size() as usize;
    let num_rows = seq_len_q * num_q_heads;

    let mut q = vec![0.0; num_rows * dim];
    for (row, to) in q.chunks_exact_mut(dim).enumerate() {
        let (kv_head, q_index, g) = (row / (seq_len_q * group), row / group % seq_len_q, row % group);
        let head = q_index * num_q_heads + kv_head * group + g;
        widen(&sequence.q[head * dim..][..dim], to);
    }
    let visible = (0..seq_len_q).map(|q_index| sequence.visible(q_index)).collect();
    let tile_kv = tile_kv.min(keys.len()).max(1);
    pulp::Arch::new().dispatch(Stream {
        sequence,
        keys,
        tile_kv,
        q,
        visible,
        scores: vec![HIDDEN; num_rows * tile_kv],
        token: vec![0.0; num_kv_heads * dim.max(dim_v)],
        partial: Partial { max: vec![FLOOR; num_rows], sum: vec![0.0; num_rows], acc: vec![0.0; num_rows * dim_v] },
    })
}

struct Stream<'a, T> {
    sequence: &'a Sequence<'a, T>,
    keys: Range<usize>,
    tile_kv: usize,
    /// `[rows, head_dim]`.
    q: Vec<f32>,
    /// Keys that each query sees, `[seq_len_q]`.
    visible: Vec<Range<usize>>,
    /// `[rows, tile_kv]`.
    scores: Vec<f32>,
    /// k or v of one key, widened, `[num_kv_heads, dim]`.
    token: Vec<f32>,
    partial: Partial,
}

impl<T: Element> WithSimd for Stream<'_, T> {
    type Output = Partial;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> Partial {
        for start in self.keys.clone().step_by(self.tile_kv) {
            let kv_tile = start..self.keys.end.min(start + self.tile_kv);
            self.score(simd, &kv_tile);
            self.soften(simd, kv_tile.len());
            self.accumulate(simd, &kv_tile);
        }
        self.partial
    }
}

impl<T: Element> Stream<'_, T> {
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, kv_tile: &Range<usize>) {
        let shape = self.sequence.shape;
        let dim = shape.head_dim as usize;
        let group = shape.group_size() as usize;
        let rows_per_head = self.visible.len() * group;
        let stride = shape.num_kv_heads as usize * dim;
        for (column, key) in kv_tile.clone().enumerate() {
            let token = read_token(&self.sequence.k[key * stride..][..stride], &mut self.token);
            for (kv_head, k) in token.chunks_exact(dim).enumerate() {
                for row in 0..rows_per_head {
                    let at = kv_head * rows_per_head + row;
                    let score = &mut self.scores[at * self.tile_kv + column];
                    *score = if self.visible[row / group].contains(&key) {
                        dot(simd, &self.q[at * dim..][..dim], k) * self.sequence.scale_log2
                    } else {
                        HIDDEN
                    };
                }
            }
        }
    }

    #[inline(always)]
    fn soften<S: Simd>(&mut self, simd: S, num_keys: usize) {
        let Partial { max, sum, acc } = &mut self.partial;
        let dim_v = self.sequence.shape.head_dim_v as usize;
        let rows = self.scores.chunks_exact_mut(self.tile_kv).zip(max).zip(sum).zip(acc.chunks_exact_mut(dim_v));
        for (((scores, max), sum), acc) in rows {
            let rescale = SoftmaxRow { scores: &mut scores[..num_keys], max, sum }.with_simd(simd);
            if rescale != 1.0 {
                acc.iter_mut().for_each(|acc| *acc *= rescale);
            }
        }
    }

    #[inline(always)]
    fn accumulate<S: Simd>(&mut self, simd: S, kv_tile: &Range<usize>) {
        let shape = self.sequence.shape;
        let dim = shape.head_dim_v as usize;
        let group = shape.group_size() as usize;
        let rows_per_head = self.visible.len() * group;
        let stride = shape.num_kv_heads as usize * dim;
        for (column, key) in kv_tile.clone().enumerate() {
            let token = read_token(&self.sequence.v[key * stride..][..stride], &mut self.token);
            for (kv_head, v) in token.chunks_exact(dim).enumerate() {
                for row in 0..rows_per_head {
                    // A weight of 0 would not hide a value that is not finite.
                    if self.visible[row / group].contains(&key) {
                        let at = kv_head * rows_per_head + row;
                        let weight = self.scores[at * self.tile_kv + column];
                        accumulate(simd, &mut self.partial.acc[at * dim..][..dim], weight, v);
                    }
                }
            }
        }
    }
}

/// One key of all heads as f32.
#[inline(always)]
fn read_token<'a, T: Element>(from: &'a [T], copy: &'a mut [f32]) -> &'a [f32] {
    as_f32(from).unwrap_or_else(|| {
        let copy = &mut copy[..from.len()];
        widen(from, copy);
        copy
    })
}
