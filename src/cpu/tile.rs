//! A tile of query rows against a range of keys: two matrix products per tile of keys and an online softmax between.
//!
//! Every tile is stored with its rows side by side, so that maxima, sums and rescaling run down the vector lanes, and
//! k and v are read where they lie.

use super::sequence::{Partial, Sequence, as_f32, widen};
use super::simd::{AllFinite, FLOOR, HIDDEN, LANES, ScaleRows, SoftmaxRows};
use crate::Element;
use core::ops::Range;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Rows `q_index * group_size + g` of one KV head.
#[derive(Clone, Debug)]
pub(super) struct RowTile {
    pub(super) kv_head: usize,
    pub(super) rows: Range<usize>,
}

impl RowTile {
    /// The queries that the rows belong to.
    pub(super) fn q_indices(&self, group_size: usize) -> Range<usize> {
        self.rows.start / group_size..self.rows.end.div_ceil(group_size)
    }
}

/// What a thread needs besides its inputs and its result. Grows to the largest tile that it met.
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

/// The first `len` elements, whatever they held before.
fn at_least(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Attention of `tile` over `keys`, `tile_kv` keys at a time.
pub(super) fn attend_tile<T: Element>(
    sequence: &Sequence<'_, T>,
    tile: &RowTile,
    keys: Range<usize>,
    tile_kv: usize,
    scratch: &mut Scratch,
) -> Partial {
    let arch = pulp::Arch::new();
    let shape = sequence.shape;
    let [num_q_heads, num_kv_heads] = [shape.num_q_heads, shape.num_kv_heads].map(|n| n as usize);
    let [dim, dim_v] = [shape.head_dim, shape.head_dim_v].map(|n| n as usize);
    let group = shape.group_size() as usize;
    let num_rows = tile.rows.len();
    let ld = num_rows.next_multiple_of(LANES);

    let Scratch { q, scores, acc, rescale, keys: copy } = scratch;
    let q = at_least(q, dim * ld);
    let rescale = at_least(rescale, ld);
    let acc = at_least(acc, dim_v * ld);
    let copy = at_least(copy, tile_kv.min(keys.len()) * dim.max(dim_v));
    // Padding rows must be finite and no more: lanes never mix.
    q.fill(0.0);
    acc.fill(0.0);
    let mut q_row = [0.0; crate::AttentionProblem::MAX_HEAD_DIM as usize];
    for (lane, row) in tile.rows.clone().enumerate() {
        let head = (row / group) * num_q_heads + tile.kv_head * group + row % group;
        widen(&sequence.q[head * dim..][..dim], &mut q_row[..dim]);
        for (d, &x) in q_row[..dim].iter().enumerate() {
            q[d * ld + lane] = x;
        }
    }
    let q = MatRef::from_column_major_slice(&*q, ld, dim);
    let mut max = vec![FLOOR; ld];
    let mut sum = vec![0.0; ld];

    let q_indices = tile.q_indices(group);
    let seen_by_all = sequence.visible_to_all(&q_indices);
    for start in keys.clone().step_by(tile_kv) {
        let kv_tile = start..keys.end.min(start.saturating_add(tile_kv));
        let num_keys = kv_tile.len();
        let masked = !(seen_by_all.start <= kv_tile.start && kv_tile.end <= seen_by_all.end);
        let scores = at_least(scores, num_keys * ld);

        let k = KvTile { data: sequence.k, num_heads: num_kv_heads, head: tile.kv_head, dim };
        let (k, stride) = k.read(&kv_tile, copy);
        matmul(
            MatMut::from_column_major_slice_mut(&mut *scores, ld, num_keys),
            Accum::Replace,
            q,
            MatRef::from_column_major_slice_with_stride(k, dim, num_keys, stride),
            sequence.scale_log2,
            Par::Seq,
        );
        let lanes_of = |key| {
            let seeing = sequence.queries_of(key, &q_indices);
            let lane = |q_index: usize| (q_index * group).clamp(tile.rows.start, tile.rows.end) - tile.rows.start;
            lane(seeing.start)..lane(seeing.end)
        };
        if masked {
            for (key, scores) in kv_tile.clone().zip(scores.chunks_exact_mut(ld)) {
                let lanes = lanes_of(key);
                scores[..lanes.start].fill(HIDDEN);
                scores[lanes.end..].fill(HIDDEN);
            }
        }
        let changed = arch.dispatch(SoftmaxRows { scores, max: &mut max, sum: &mut sum, rescale });
        if changed {
            arch.dispatch(ScaleRows { values: acc, factors: rescale });
        }

        let v = KvTile { data: sequence.v, num_heads: num_kv_heads, head: tile.kv_head, dim: dim_v };
        let (mut v_tile, mut stride) = v.read(&kv_tile, copy);
        let finite = |v: &[f32]| v.chunks(stride).all(|row| arch.dispatch(AllFinite(&row[..dim_v])));
        if masked && !finite(v_tile) {
            // 0 * NaN is NaN: a weight of 0 does not hide a value that is not finite from the rows that must not see
            // it. So the product runs over zeros in their place, and the rows that do see them get them one by one.
            v.copy_finite(&kv_tile, copy);
            (v_tile, stride) = (&*copy, dim_v);
            for (key, weights) in kv_tile.clone().zip(scores.chunks_exact(ld)) {
                let lanes = lanes_of(key);
                for (d, x) in v.row(key).iter().map(|x| x.to_f32()).enumerate() {
                    if !x.is_finite() {
                        let seeing = acc[d * ld..][lanes.clone()].iter_mut().zip(&weights[lanes.clone()]);
                        seeing.for_each(|(acc, weight)| *acc += weight * x);
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

    max.truncate(num_rows);
    sum.truncate(num_rows);
    let mut rows = vec![0.0; num_rows * dim_v];
    for (lane, row) in rows.chunks_exact_mut(dim_v).enumerate() {
        for (d, to) in row.iter_mut().enumerate() {
            *to = acc[d * ld + lane];
        }
    }
    Partial { max, sum, acc: rows }
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

    /// The rows of `keys` and their stride: in place when they are f32, else widened into `copy`.
    fn read<'b>(&self, keys: &Range<usize>, copy: &'b mut [f32]) -> (&'b [f32], usize)
    where
        'a: 'b,
    {
        let stride = self.num_heads * self.dim;
        if let Some(data) = as_f32(self.data) {
            let start = keys.start * stride + self.head * self.dim;
            return (&data[start..][..(keys.len() - 1) * stride + self.dim], stride);
        }
        for (key, to) in keys.clone().zip(copy.chunks_exact_mut(self.dim)) {
            widen(self.row(key), to);
        }
        (&copy[..keys.len() * self.dim], self.dim)
    }

    /// The rows of `keys` with 0 in place of what is not finite.
    fn copy_finite(&self, keys: &Range<usize>, copy: &mut [f32]) {
        for (key, to) in keys.clone().zip(copy.chunks_exact_mut(self.dim)) {
            for (to, x) in to.iter_mut().zip(self.row(key)) {
                let x = x.to_f32();
                *to = if x.is_finite() { x } else { 0.0 };
            }
        }
    }
}
