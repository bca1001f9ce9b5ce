//! A tile of query rows against a walk: two matrix products per tile of keys and an online softmax between.
//!
//! Every tile is stored with its rows side by side, so that maxima, sums and rescaling run down the vector lanes, and
//! k and v are read where they lie.

use super::modify::{Chain, ChainRows, ModifyColumns};
use super::sequence::{Partial, Sequence, as_f32, widen};
use super::simd::{AllFinite, FLOOR, HIDDEN, LANES, ScaleRows, SoftmaxRows};
use super::walk::{Part, TileClass, TileKeys, Walk};
use crate::Element;
use core::ops::Range;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows `q_index * num_heads + g`, of query heads that share a KV head.
#[derive(Clone, Debug)]
pub(super) struct RowTile {
    pub(super) kv_head: usize,
    pub(super) first_head: usize,
    /// Query heads of each query.
    pub(super) num_heads: usize,
    pub(super) rows: Range<usize>,
}

impl RowTile {
    /// The queries that the rows belong to.
    pub(super) fn q_indices(&self) -> Range<usize> {
        self.rows.start / self.num_heads..self.rows.end.div_ceil(self.num_heads)
    }

    /// `[query, head]` of a row, counted from the first row of the tile; rows past its last are those of the next KV heads.
    pub(super) fn place(&self, lane: usize) -> [usize; 2] {
        let (kv_head, row) = (lane / self.rows.len(), self.rows.start + lane % self.rows.len());
        [row / self.num_heads, self.first_head + kv_head * self.num_heads + row % self.num_heads]
    }

    /// The rows of some queries, counted from the first row of the tile.
    pub(super) fn lanes_of(&self, q_indices: &Range<usize>) -> Range<usize> {
        let lane = |q_index: usize| {
            q_index.saturating_mul(self.num_heads).clamp(self.rows.start, self.rows.end) - self.rows.start
        };
        lane(q_indices.start)..lane(q_indices.end)
    }
}

/// Scratch memory of a thread. Grows to the largest tile so far.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// `[head_dim, ld]`.
    q: Vec<f32>,
    /// Scores, then weights, `[tile_kv, ld]`.
    scores: Vec<f32>,
    /// `[head_dim_v, ld]`.
    acc: Vec<f32>,
    /// `[ld]`.
    rescale: Vec<f32>,
    /// A tile of k or of v that cannot be read in place, `[tile_kv, dim]`.
    keys: Vec<f32>,
}

/// The first `len` elements, with arbitrary contents.
fn at_least(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Attention of `tile` over a part of its walk, at most `tile_kv` keys at a time.
pub(super) fn attend_tile<T: Element>(
    sequence: &Sequence<'_, T>,
    tile: &RowTile,
    walk: &Walk,
    part: &Part<'_>,
    tile_kv: usize,
    scratch: &mut Scratch,
) -> Partial {
    let q_indices = tile.q_indices();
    let hides_keys = sequence.chain.as_ref().is_some_and(Chain::hides_keys);
    let mut softmax = TileSoftmax::new(sequence, tile, scratch);
    for keys in part.tiles(walk.tile_len(tile_kv)) {
        let lanes_of = |key| tile.lanes_of(&walk.queries_of(&keys, key));
        match walk.class(&keys, &q_indices) {
            TileClass::Empty => {}
            class @ (TileClass::Partial | TileClass::Full) => {
                let masked = class == TileClass::Partial || hides_keys;
                softmax.absorb(&keys, masked.then_some(&lanes_of));
            }
        }
    }
    softmax.finish()
}

/// Online softmax of the rows of a tile, one tile of keys after the other.
struct TileSoftmax<'a, T> {
    arch: pulp::Arch,
    sequence: &'a Sequence<'a, T>,
    tile: &'a RowTile,
    /// Where scores are modified.
    chain: Option<(&'a Chain<'a>, ChainRows)>,
    num_rows: usize,
    /// `num_rows`, padded.
    ld: usize,
    scratch: &'a mut Scratch,
    max: Vec<f32>,
    sum: Vec<f32>,
}

impl<'a, T: Element> TileSoftmax<'a, T> {
    fn new(sequence: &'a Sequence<'a, T>, tile: &'a RowTile, scratch: &'a mut Scratch) -> Self {
        let shape = sequence.shape;
        let [dim, dim_v, num_q_heads] = [shape.head_dim, shape.head_dim_v, shape.num_q_heads].map(|n| n as usize);
        let num_rows = tile.rows.len();
        let ld = num_rows.next_multiple_of(LANES);
        let q = at_least(&mut scratch.q, dim * ld);
        // Padding rows only have to be finite: lanes never mix.
        q.fill(0.0);
        at_least(&mut scratch.acc, dim_v * ld).fill(0.0);
        at_least(&mut scratch.rescale, ld);
        let mut q_row = [0.0; crate::AttentionProblem::MAX_HEAD_DIM as usize];
        for (lane, row) in tile.rows.clone().enumerate() {
            let head = (row / tile.num_heads) * num_q_heads + tile.first_head + row % tile.num_heads;
            widen(&sequence.q[head * dim..][..dim], &mut q_row[..dim]);
            for (d, &x) in q_row[..dim].iter().enumerate() {
                q[d * ld + lane] = x;
            }
        }
        let (max, sum) = (vec![FLOOR; ld], vec![0.0; ld]);
        let rows = || (0..num_rows).map(|lane| tile.place(lane)).collect::<Vec<_>>();
        let chain = sequence.chain.as_ref().map(|chain| (chain, ChainRows::new(chain, &rows())));
        Self { arch: pulp::Arch::new(), sequence, tile, chain, num_rows, ld, scratch, max, sum }
    }

    /// Adds a tile of keys. `lanes_of` gives the rows that see a key; `None`: all rows see all keys.
    fn absorb(&mut self, keys: &TileKeys<'_>, lanes_of: Option<&impl Fn(usize) -> Range<usize>>) {
        let Self { arch, sequence, tile, ld, ref mut max, ref mut sum, .. } = *self;
        let kv_head = tile.kv_head;
        let shape = sequence.shape;
        let [dim, dim_v, num_kv_heads] = [shape.head_dim, shape.head_dim_v, shape.num_kv_heads].map(|n| n as usize);
        let num_keys = keys.len();
        let Scratch { q, scores, acc, rescale, keys: copy } = &mut *self.scratch;
        let q = MatRef::from_column_major_slice(&q[..dim * ld], ld, dim);
        let (acc, rescale) = (&mut acc[..dim_v * ld], &mut rescale[..ld]);
        let scores = at_least(scores, num_keys * ld);
        let copy = at_least(copy, num_keys * dim.max(dim_v));

        let k = KvTile { data: sequence.k, num_heads: num_kv_heads, head: kv_head, dim };
        let (k, stride) = k.read(keys, copy);
        matmul(
            MatMut::from_column_major_slice_mut(&mut *scores, ld, num_keys),
            Accum::Replace,
            q,
            MatRef::from_column_major_slice_with_stride(k, dim, num_keys, stride),
            sequence.scale,
            Par::Seq,
        );
        if let Some((chain, rows)) = &self.chain {
            arch.dispatch(ModifyColumns { chain, rows, keys: keys.iter(), scores: &mut *scores, ld });
        }
        if let Some(lanes_of) = lanes_of {
            for (key, scores) in keys.iter().zip(scores.chunks_exact_mut(ld)) {
                let lanes = lanes_of(key);
                scores[..lanes.start].fill(HIDDEN);
                scores[lanes.end..].fill(HIDDEN);
            }
        }
        let changed = arch.dispatch(SoftmaxRows { scores, max, sum, rescale });
        if changed {
            arch.dispatch(ScaleRows { values: acc, factors: rescale });
        }

        let v = KvTile { data: sequence.v, num_heads: num_kv_heads, head: kv_head, dim: dim_v };
        let (mut v_tile, mut stride) = v.read(keys, copy);
        let finite = |v: &[f32]| v.chunks(stride).all(|row| arch.dispatch(AllFinite(&row[..dim_v])));
        if let Some(lanes_of) = lanes_of
            && !finite(v_tile)
        {
            // 0 * NaN is NaN, so a weight of 0 does not hide a non-finite value from rows that must not see it. The product therefore has
            // zeros in place of such values, and rows that see them get them one by one.
            v.copy_finite(keys, copy);
            (v_tile, stride) = (&*copy, dim_v);
            for (key, weights) in keys.iter().zip(scores.chunks_exact(ld)) {
                let lanes = lanes_of(key);
                for (d, x) in v.row(key).iter().map(|x| x.to_f32()).enumerate() {
                    if !x.is_finite() {
                        for lane in lanes.clone() {
                            let hidden = |(chain, _): &(&Chain<'_>, _)| chain.hides(tile.place(lane), key);
                            if weights[lane] != 0.0 || !self.chain.as_ref().is_some_and(hidden) {
                                acc[d * ld + lane] += weights[lane] * x;
                            }
                        }
                    }
                }
            }
        }
        matmul(
            MatMut::from_column_major_slice_mut(&mut *acc, ld, dim_v),
            Accum::Add,
            MatRef::from_column_major_slice(&*scores, ld, num_keys),
            MatRef::from_row_major_slice_with_stride(
                &v_tile[..(num_keys - 1) * stride + dim_v],
                num_keys,
                dim_v,
                stride,
            ),
            1.0,
            Par::Seq,
        );
    }

    fn finish(mut self) -> Partial {
        let dim_v = self.sequence.shape.head_dim_v as usize;
        self.max.truncate(self.num_rows);
        self.sum.truncate(self.num_rows);
        let mut rows = vec![0.0; self.num_rows * dim_v];
        for (lane, row) in rows.chunks_exact_mut(dim_v).enumerate() {
            for (d, to) in row.iter_mut().enumerate() {
                *to = self.scratch.acc[d * self.ld + lane];
            }
        }
        Partial { max: self.max, sum: self.sum, acc: rows }
    }
}

/// k or v of one head, `[seq, head, dim]`.
#[derive(Clone, Copy)]
struct KvTile<'a, T> {
    data: &'a [T],
    num_heads: usize,
    head: usize,
    dim: usize,
}

impl<'a, T: Element> KvTile<'a, T> {
    fn row(&self, key: usize) -> &'a [T] {
        &self.data[(key * self.num_heads + self.head) * self.dim..][..self.dim]
    }

    /// The rows of `keys` and their stride: in place when they are f32 and side by side, else widened into `copy`.
    fn read<'b>(&self, keys: &TileKeys<'_>, copy: &'b mut [f32]) -> (&'b [f32], usize)
    where
        'a: 'b,
    {
        let stride = self.num_heads * self.dim;
        if let (TileKeys::Run(keys), Some(data)) = (keys, as_f32(self.data)) {
            let start = keys.start * stride + self.head * self.dim;
            return (&data[start..][..(keys.len() - 1) * stride + self.dim], stride);
        }
        for (key, to) in keys.iter().zip(copy.chunks_exact_mut(self.dim)) {
            widen(self.row(key), to);
        }
        (&copy[..keys.len() * self.dim], self.dim)
    }

    /// The rows of `keys` with 0 in place of non-finite values.
    fn copy_finite(&self, keys: &TileKeys<'_>, copy: &mut [f32]) {
        for (key, to) in keys.iter().zip(copy.chunks_exact_mut(self.dim)) {
            for (to, x) in to.iter_mut().zip(self.row(key)) {
                let x = x.to_f32();
                *to = if x.is_finite() { x } else { 0.0 };
            }
        }
    }
}
