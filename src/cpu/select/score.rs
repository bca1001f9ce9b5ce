//! The largest `q·k` over some queries, key by key, for keys that lie anywhere: they are read in place.

use crate::cpu::sequence::as_f32;
use crate::cpu::simd::{LANES, dot};
use crate::cpu::stream_selected::widened;
use crate::{Element, LSE_EMPTY};
use pulp::{Simd, WithSimd};

/// Score of a key that no query may see. Finite, and below every score that counts.
pub(super) const MASKED: f32 = LSE_EMPTY;

/// Up to this many queries, each is multiplied with a key by itself; more lie along the vector lanes.
const FEW_QUERIES: usize = 3;

/// Keys that are fetched at a time.
const AHEAD: usize = 32;

/// Bytes.
const CACHE_LINE: usize = 64;

/// The keys of one KV head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadKeys<'a, T> {
    /// From the first key's first element on.
    data: &'a [T],
    /// Elements from one key to the next.
    stride: usize,
    dim: usize,
    num_keys: usize,
}

impl<'a, T: Element> HeadKeys<'a, T> {
    /// Keys `[seq_len_kv, num_kv_heads, dim]`.
    pub(super) fn new(k: &'a [T], num_kv_heads: usize, kv_head: usize, dim: usize) -> Self {
        let stride = num_kv_heads * dim;
        Self { data: k.get(kv_head * dim..).unwrap_or(&[]), stride, dim, num_keys: k.len() / stride }
    }

    #[inline(always)]
    fn row(&self, key: u32) -> &'a [T] {
        // Whoever asks for a key past the end lets no query see it.
        let key = (key as usize).min(self.num_keys - 1);
        &self.data[key * self.stride..][..self.dim]
    }

    /// Loads a piece of every cache line of some keys: nothing depends on these loads, so that the processor waits for
    /// many of them at a time.
    #[inline(always)]
    fn touch(&self, keys: &[u32]) {
        let step = CACHE_LINE / size_of::<T>();
        let mut sum = 0u8;
        for &key in keys {
            for line in self.row(key).chunks(step) {
                sum ^= bytemuck::bytes_of(&line[0])[0];
            }
        }
        core::hint::black_box(sum);
    }
}

/// Queries that share a score.
#[derive(Clone, Debug)]
pub(super) struct Queries {
    num: usize,
    dim: usize,
    /// `[num, dim]` if there are few, else `[dim, ld]` with the last one repeated up to `ld`.
    data: Vec<f32>,
}

impl Queries {
    /// `write(i, to)` writes query `i` to `to` `[dim]`.
    pub(super) fn new(num: usize, dim: usize, mut write: impl FnMut(usize, &mut [f32])) -> Self {
        if num <= FEW_QUERIES {
            let mut data = vec![0.0; num * dim];
            data.chunks_exact_mut(dim).enumerate().for_each(|(i, to)| write(i, to));
            return Self { num, dim, data };
        }
        let ld = num.next_multiple_of(LANES);
        let mut data = vec![0.0; dim * ld];
        let mut row = vec![0.0; dim];
        for lane in 0..ld {
            if lane < num {
                write(lane, &mut row);
            }
            for (d, &x) in row.iter().enumerate() {
                data[d * ld + lane] = x;
            }
        }
        Self { num, dim, data }
    }

    pub(super) fn len(&self) -> usize {
        self.num
    }

    /// Raises `scores[i]` to the largest product of `keys[i]` with the queries from number `first_query(keys[i])` on.
    pub(super) fn raise_scores<T: Element>(
        &self,
        from: HeadKeys<'_, T>,
        keys: &[u32],
        first_query: impl Fn(u32) -> usize,
        scores: &mut [f32],
    ) {
        pulp::Arch::new().dispatch(RaiseScores { queries: self, from, keys, first_query, scores });
    }
}

struct RaiseScores<'a, T, F> {
    queries: &'a Queries,
    from: HeadKeys<'a, T>,
    keys: &'a [u32],
    first_query: F,
    scores: &'a mut [f32],
}

impl<T: Element, F: Fn(u32) -> usize> WithSimd for RaiseScores<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.queries.num <= FEW_QUERIES {
            self.few(simd);
        } else if S::F32_LANES >= LANES {
            // Sixteen sums fit the registers of machines with vectors of this width.
            self.lanes::<S, 8>(simd);
        } else {
            self.lanes::<S, 4>(simd);
        }
    }
}

impl<T: Element, F: Fn(u32) -> usize> RaiseScores<'_, T, F> {
    #[inline(always)]
    fn few<S: Simd>(self, simd: S) {
        let mut copy = vec![0.0; if as_f32::<T>(&[]).is_some() { 0 } else { self.queries.dim }];
        for (keys, scores) in self.keys.chunks(AHEAD).zip(self.scores.chunks_mut(AHEAD)) {
            self.from.touch(keys);
            for (&key, score) in keys.iter().zip(scores) {
                let row = widened(self.from.row(key), &mut copy);
                let first = (self.first_query)(key);
                for (i, q) in self.queries.data.chunks_exact(self.queries.dim).enumerate() {
                    let product = dot(simd, q, row);
                    *score = if i >= first && product > *score { product } else { *score };
                }
            }
        }
    }

    /// `N` keys at a time.
    #[inline(always)]
    fn lanes<S: Simd, const N: usize>(self, simd: S) {
        let Queries { num, dim, ref data } = *self.queries;
        let ld = num.next_multiple_of(LANES);
        let (q, _) = S::as_simd_f32s(data);
        let mut copies = vec![0.0; if as_f32::<T>(&[]).is_some() { 0 } else { N * dim }];
        let mut products = vec![0.0; N * ld];
        for (keys, scores) in self.keys.chunks(N).zip(self.scores.chunks_mut(N)) {
            let key = |i: usize| keys[i.min(keys.len() - 1)];
            let mut rows: [&[f32]; N] = [&[]; N];
            let mut rest = &mut copies[..];
            for (i, row) in rows.iter_mut().enumerate() {
                let (copy, others) = rest.split_at_mut(rest.len().min(dim));
                rest = others;
                *row = widened(self.from.row(key(i)), copy);
            }
            let first: [usize; N] = core::array::from_fn(|i| (self.first_query)(key(i)));
            if first == [0; N] {
                let best = best_of_all::<S, N>(simd, q, dim, rows);
                for (score, best) in scores.iter_mut().zip(best) {
                    *score = score.max(best);
                }
            } else if first.iter().any(|&first| first < num) {
                all_products::<S, N>(simd, q, dim, rows, &mut products);
                for ((score, products), first) in scores.iter_mut().zip(products.chunks_exact(ld)).zip(first) {
                    *score = products[first.min(num)..num].iter().fold(*score, |score, &product| score.max(product));
                }
            }
        }
    }
}

/// Products of `V` vectors of queries, from vector `at` on, with `N` keys.
#[inline(always)]
fn products<S: Simd, const V: usize, const N: usize>(
    simd: S,
    q: &[S::f32s],
    at: usize,
    dim: usize,
    rows: [&[f32]; N],
) -> [[S::f32s; V]; N] {
    let width = q.len() / dim;
    let mut sums = [[simd.splat_f32s(0.0); V]; N];
    // Head widths are multiples of four.
    for (step, q) in q.chunks_exact(4 * width).enumerate() {
        let rows: [&[f32]; N] = core::array::from_fn(|n| &rows[n][4 * step..4 * step + 4]);
        for d in 0..4 {
            let q = &q[d * width + at..][..V];
            for n in 0..N {
                let x = simd.splat_f32s(rows[n][d]);
                for v in 0..V {
                    sums[n][v] = simd.mul_add_e_f32s(q[v], x, sums[n][v]);
                }
            }
        }
    }
    sums
}

#[inline(always)]
fn best_of_all<S: Simd, const N: usize>(simd: S, q: &[S::f32s], dim: usize, rows: [&[f32]; N]) -> [f32; N] {
    let width = q.len() / dim;
    let mut best = [simd.splat_f32s(MASKED); N];
    let mut at = 0;
    while at + 2 <= width {
        let sums = products::<S, 2, N>(simd, q, at, dim, rows);
        for n in 0..N {
            best[n] = simd.max_f32s(best[n], simd.max_f32s(sums[n][0], sums[n][1]));
        }
        at += 2;
    }
    if at < width {
        let sums = products::<S, 1, N>(simd, q, at, dim, rows);
        for n in 0..N {
            best[n] = simd.max_f32s(best[n], sums[n][0]);
        }
    }
    best.map(|best| simd.reduce_max_f32s(best))
}

/// `to` `[N, ld]`.
#[inline(always)]
fn all_products<S: Simd, const N: usize>(simd: S, q: &[S::f32s], dim: usize, rows: [&[f32]; N], to: &mut [f32]) {
    let width = q.len() / dim;
    let (to, _) = S::as_mut_simd_f32s(to);
    for at in 0..width {
        let sums = products::<S, 1, N>(simd, q, at, dim, rows);
        for (n, sums) in sums.iter().enumerate() {
            to[n * width + at] = sums[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_exact_on_integers_for_any_number_of_queries() {
        const DIM: usize = 12;
        let value = |i: usize| (i * 31 % 7) as f32 - 3.0;
        let k: Vec<f32> = (0..40 * 3 * DIM).map(value).collect();
        let from = HeadKeys::new(&k, 3, 1, DIM);
        let keys: Vec<u32> = (0..37).map(|i| i * 17 % 40).collect();
        for num in [1, 2, 3, 4, 15, 16, 17, 32, 33, 50] {
            let q = |i: usize, d: usize| value(i * 5 + d * d + 1);
            let queries = Queries::new(num, DIM, |i, to| to.iter_mut().enumerate().for_each(|(d, x)| *x = q(i, d)));
            assert_eq!(queries.len(), num);
            let first_query = |key: u32| if key.is_multiple_of(5) { key as usize } else { 0 };
            let mut scores = vec![MASKED; keys.len()];
            queries.raise_scores(from, &keys, first_query, &mut scores);
            for (&key, &score) in keys.iter().zip(&scores) {
                let product = |i| (0..DIM).map(|d| q(i, d) * k[(key as usize * 3 + 1) * DIM + d]).sum::<f32>();
                let best = (first_query(key)..num).map(product).fold(MASKED, f32::max);
                assert_eq!(score, best, "key {key}, {num} queries");
            }
        }
    }
}
