//! A few query rows against a walk, as in decoding: every key and value is read once, in place and in the order of the walk, for all
//! heads of the walk. Reading k and v takes most of the time.

use super::modify::{Chain, ModifyRow};
use super::sequence::{Partial, Sequence, widen, widened};
use super::simd::{FLOOR, HIDDEN, SoftmaxRow, accumulate, dot};
use super::tile::RowTile;
use super::walk::{Part, TileClass, TileKeys, TileLen, Walk};
use crate::Element;
use core::ops::Range;
use pulp::{Simd, WithSimd};

/// Attention of the rows of `tile`, and of the same rows of the next `num_kv_heads - 1` KV heads, over a part of their
/// walk, `tile_kv` keys at a time. The rows of the result are `[kv_head, row]`.
pub(super) fn attend_stream<T: Element>(
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
    let tile_kv = part.longest_tile(tile_kv);
    pulp::Arch::new().dispatch(Stream {
        sequence,
        tile,
        num_kv_heads,
        walk,
        part,
        tile_kv,
        q,
        scores: vec![HIDDEN; num_rows * tile_kv],
        copy: vec![0.0; num_kv_heads * dim.max(dim_v)],
        keys: Vec::new(),
        partial: Partial { max: vec![FLOOR; num_rows], sum: vec![0.0; num_rows], acc: vec![0.0; num_rows * dim_v] },
    })
}

struct Stream<'a, T> {
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
    /// The keys of a tile whose scores are modified.
    keys: Vec<u32>,
    partial: Partial,
}

impl<T: Element> WithSimd for Stream<'_, T> {
    type Output = Partial;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> Partial {
        let Self { part, walk, tile, tile_kv, .. } = self;
        let (q_indices, all) = (tile.q_indices(), 0..tile.rows.len());
        for keys in part.tiles(TileLen::Fixed(tile_kv)) {
            match walk.class(&keys, &q_indices) {
                TileClass::Empty => {}
                TileClass::Partial => self.absorb(simd, &keys, |key| tile.lanes_of(&walk.queries_of(&keys, key))),
                TileClass::Full => self.absorb(simd, &keys, |_| all.clone()),
            }
        }
        self.partial
    }
}

impl<T: Element> Stream<'_, T> {
    /// Adds a tile of keys. `lanes_of` gives the rows that see a key.
    #[inline(always)]
    fn absorb<S: Simd>(&mut self, simd: S, keys: &TileKeys<'_>, lanes_of: impl Fn(usize) -> Range<usize>) {
        let Self { sequence, tile, num_kv_heads, tile_kv, ref q, ref mut scores, ref mut copy, .. } = *self;
        let shape = sequence.shape;
        let [dim, dim_v, stride] = [shape.head_dim, shape.head_dim_v, shape.num_kv_heads].map(|n| n as usize);
        let num_rows = tile.rows.len();
        let token = |key: usize, dim: usize| {
            let start = (key * stride + tile.kv_head) * dim;
            start..start + num_kv_heads * dim
        };
        for (column, key) in keys.iter().enumerate() {
            let lanes = lanes_of(key);
            let k = widened(&sequence.k[token(key, dim)], copy);
            for (kv_head, k) in k.chunks_exact(dim).enumerate() {
                for lane in 0..num_rows {
                    let row = kv_head * num_rows + lane;
                    let score = &mut scores[row * tile_kv + column];
                    *score = if lanes.contains(&lane) {
                        dot(simd, &q[row * dim..][..dim], k) * sequence.scale
                    } else {
                        HIDDEN
                    };
                }
            }
        }
        if let Some(chain) = &sequence.chain {
            self.modify(simd, chain, keys, &lanes_of);
        }
        let Self { ref mut scores, ref mut copy, ref mut partial, .. } = *self;
        let Partial { max, sum, acc } = partial;
        let rows = scores.chunks_exact_mut(tile_kv).zip(max).zip(sum).zip(acc.chunks_exact_mut(dim_v));
        for (((scores, max), sum), acc) in rows {
            let rescale = SoftmaxRow { scores: &mut scores[..keys.len()], max, sum }.with_simd(simd);
            if rescale != 1.0 {
                acc.iter_mut().for_each(|acc| *acc *= rescale);
            }
        }
        for (column, key) in keys.iter().enumerate() {
            let lanes = lanes_of(key);
            let v = widened(&sequence.v[token(key, dim_v)], copy);
            for (kv_head, v) in v.chunks_exact(dim_v).enumerate() {
                // A weight of 0 would not hide a value that is not finite.
                for row in lanes.clone().map(|lane| kv_head * num_rows + lane) {
                    let weight = scores[row * tile_kv + column];
                    if weight == 0.0 && sequence.chain.as_ref().is_some_and(|chain| chain.hides(tile.place(row), key)) {
                        continue;
                    }
                    accumulate(simd, &mut partial.acc[row * dim_v..][..dim_v], weight, v);
                }
            }
        }
    }

    /// Passes the tile's scores through the chain, and hides the masked ones again.
    #[inline(always)]
    fn modify<S: Simd>(
        &mut self,
        simd: S,
        chain: &Chain<'_>,
        keys: &TileKeys<'_>,
        lanes_of: &impl Fn(usize) -> Range<usize>,
    ) {
        let num_rows = self.tile.rows.len();
        self.keys.clear();
        self.keys.extend(keys.iter().map(|key| key as u32)); // lengths fit 29 bits
        for (row, scores) in self.scores.chunks_exact_mut(self.tile_kv).enumerate() {
            let scores = &mut scores[..keys.len()];
            let place = self.tile.place(row);
            ModifyRow { chain, row: place, keys: &self.keys, scores: &mut *scores }.with_simd(simd);
            for (score, key) in scores.iter_mut().zip(keys.iter()) {
                if !lanes_of(key).contains(&(row % num_rows)) {
                    *score = HIDDEN;
                }
            }
        }
    }
}
