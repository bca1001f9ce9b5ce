//! A few query rows against a walk through selected keys, as in decoding: keys and values are read where they lie.

use super::sequence::{Partial, Sequence, as_f32, widen};
use super::simd::{FLOOR, HIDDEN, SoftmaxRow, accumulate, dot};
use super::tile::{RowTile, TileKeys};
use super::walk::{Part, Walk};
use crate::Element;
use core::ops::Range;
use pulp::{Simd, WithSimd};

/// Attention of the rows of `tile`, and of the same rows of the next `num_kv_heads - 1` KV heads, over a part of their
/// walk, `tile_kv` keys at a time. The rows of the result are `[kv_head, row]`.
pub(super) fn attend_walk<T: Element>(
    sequence: &Sequence<'_, T>,
    tile: &RowTile,
    num_kv_heads: usize,
    walk: &Walk,
    part: &Part<'_>,
    tile_kv: usize,
) -> Partial {
    let shape = sequence.shape;
    let [dim, dim_v, num_q_heads] = [shape.head_dim, shape.head_dim_v, shape.num_q_heads].map(|n| n as usize);
    let num_rows = tile.rows.len() * num_kv_heads;
    let mut q = vec![0.0; num_rows * dim];
    for (kv_head, q) in q.chunks_exact_mut(tile.rows.len() * dim).enumerate() {
        let first_head = tile.first_head + kv_head * tile.num_heads;
        for (row, to) in tile.rows.clone().zip(q.chunks_exact_mut(dim)) {
            let head = (row / tile.num_heads) * num_q_heads + first_head + row % tile.num_heads;
            widen(&sequence.q[head * dim..][..dim], to);
        }
    }
    pulp::Arch::new().dispatch(StreamWalk {
        sequence,
        tile,
        num_kv_heads,
        walk,
        part,
        tile_kv,
        q,
        scores: vec![HIDDEN; num_rows * tile_kv],
        copy: vec![0.0; num_kv_heads * dim.max(dim_v)],
        partial: Partial { max: vec![FLOOR; num_rows], sum: vec![0.0; num_rows], acc: vec![0.0; num_rows * dim_v] },
    })
}

struct StreamWalk<'a, T> {
    sequence: &'a Sequence<'a, T>,
    tile: &'a RowTile,
    num_kv_heads: usize,
    walk: &'a Walk,
    part: &'a Part<'a>,
    tile_kv: usize,
    /// `[rows, head_dim]`.
    q: Vec<f32>,
    /// `[rows, tile_kv]`.
    scores: Vec<f32>,
    /// k or v of one key, widened, `[num_kv_heads, dim]`.
    copy: Vec<f32>,
    partial: Partial,
}

impl<T: Element> WithSimd for StreamWalk<'_, T> {
    type Output = Partial;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> Partial {
        let Self { part, walk, tile_kv, .. } = self;
        for keys in part.listed.chunks(tile_kv) {
            self.absorb(simd, &TileKeys::List(keys), |key| walk.queries_of_listed(key));
        }
        for start in part.near.clone().step_by(tile_kv) {
            let keys = start..part.near.end.min(start + tile_kv);
            self.absorb(simd, &TileKeys::Run(keys), |key| walk.queries_of_near(key));
        }
        self.partial
    }
}

impl<T: Element> StreamWalk<'_, T> {
    #[inline(always)]
    fn absorb<S: Simd>(&mut self, simd: S, keys: &TileKeys<'_>, queries_of: impl Fn(usize) -> Range<usize>) {
        let Self {
            sequence, tile, num_kv_heads, tile_kv, ref q, ref mut scores, ref mut copy, ref mut partial, ..
        } = *self;
        let shape = sequence.shape;
        let [dim, dim_v, stride] = [shape.head_dim, shape.head_dim_v, shape.num_kv_heads].map(|n| n as usize);
        let num_rows = tile.rows.len();
        let token = |key: usize, dim: usize| {
            let start = (key * stride + tile.kv_head) * dim;
            start..start + num_kv_heads * dim
        };
        for (column, key) in (0..keys.len()).map(|index| keys.at(index)).enumerate() {
            let lanes = tile.lanes_of(&queries_of(key));
            let k = widened(&sequence.k[token(key, dim)], copy);
            for (row, q) in q.chunks_exact(dim).enumerate() {
                let k = &k[row / num_rows * dim..][..dim];
                let seen = lanes.contains(&(row % num_rows));
                scores[row * tile_kv + column] = if seen { dot(simd, q, k) * sequence.scale_log2 } else { HIDDEN };
            }
        }
        let Partial { max, sum, acc } = partial;
        let rows = scores.chunks_exact_mut(tile_kv).zip(max).zip(sum).zip(acc.chunks_exact_mut(dim_v));
        for (((scores, max), sum), acc) in rows {
            let rescale = SoftmaxRow { scores: &mut scores[..keys.len()], max, sum }.with_simd(simd);
            if rescale != 1.0 {
                acc.iter_mut().for_each(|acc| *acc *= rescale);
            }
        }
        for (column, key) in (0..keys.len()).map(|index| keys.at(index)).enumerate() {
            let lanes = tile.lanes_of(&queries_of(key));
            let v = widened(&sequence.v[token(key, dim_v)], copy);
            for (kv_head, v) in v.chunks_exact(dim_v).enumerate() {
                // A weight of 0 would not hide a value that is not finite.
                for row in lanes.clone().map(|lane| kv_head * num_rows + lane) {
                    accumulate(simd, &mut partial.acc[row * dim_v..][..dim_v], scores[row * tile_kv + column], v);
                }
            }
        }
    }
}

/// The row as f32.
#[inline(always)]
pub(super) fn widened<'a, T: Element>(from: &'a [T], copy: &'a mut [f32]) -> &'a [f32] {
    as_f32(from).unwrap_or_else(|| {
        let copy = &mut copy[..from.len()];
        widen(from, copy);
        copy
    })
}
