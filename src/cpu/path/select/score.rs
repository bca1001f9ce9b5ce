//! The largest `q·k` over some queries for each of some scattered keys, which are read in place.

use crate::cpu::path::sequence::{as_f32, widened};
use crate::cpu::path::simd::{LANES, dot};
use crate::{Element, LSE_EMPTY};
use core::ops::Range;
use pulp::{Simd, WithSimd};

/// Score of a key that no query may see. Finite, and below every score that counts.
pub(super) const MASKED: f32 = LSE_EMPTY;

/// Up to this many queries are multiplied with a key one by one; more are placed along the vector lanes.
const FEW_QUERIES: usize = 3;

/// Prefetch distance in keys. Prefetched keys wait in the second-level cache: the first is full of queries.
const AHEAD: usize = 16;

/// Prefetch distance in keys for a key's first line: it loads the page's translation, so that the other lines need not wait for it.
const FAR_AHEAD: usize = AHEAD + 8;

/// Bytes.
const CACHE_LINE: usize = 64;

/// The keys of one KV head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadKeys<'a, T> {
    /// Elements from the first key's first element on.
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
        // A key past the end is clamped; the caller lets no query see it.
        let key = (key as usize).min(self.num_keys - 1);
        &self.data[key * self.stride..][..self.dim]
    }

    /// Prefetches some keys.
    #[inline(always)]
    fn fetch(&self, keys: &[u32]) {
        for &key in keys {
            let row = self.row(key);
            row.iter().step_by(CACHE_LINE / size_of::<T>()).for_each(prefetch);
            // Rows may begin anywhere in a line.
            row.last().into_iter().for_each(prefetch);
        }
    }

    /// Prefetches the first line of some keys.
    #[inline(always)]
    fn fetch_first_lines(&self, keys: &[u32]) {
        keys.iter().for_each(|&key| self.row(key).first().into_iter().for_each(prefetch));
    }
}

/// Prefetches a cache line without waiting.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch<T>(at: &T) {
    if let Some(sse) = pulp::core_arch::x86::Sse::try_new() {
        sse._mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T1 }>(core::ptr::from_ref(at).cast());
    }
}

/// Loads a number that nothing depends on, so that the processor continues past it.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch<T: Copy>(at: &T) {
    core::hint::black_box(*at);
}

/// Queries that share a score.
#[derive(Clone, Debug)]
pub(super) struct Queries {
    num: usize,
    dim: usize,
    /// `[num, dim]` if there are few, else panels `[num / LANES, dim, LANES]` with the last query repeated in the last lanes.
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
        let mut data = vec![0.0; num.next_multiple_of(LANES) * dim];
        let mut row = vec![0.0; dim];
        for (panel, data) in data.chunks_exact_mut(dim * LANES).enumerate() {
            for lane in 0..LANES {
                if panel * LANES + lane < num {
                    write(panel * LANES + lane, &mut row);
                }
                for (to, &x) in data.iter_mut().skip(lane).step_by(LANES).zip(&row) {
                    *to = x;
                }
            }
        }
        Self { num, dim, data }
    }

    pub(super) fn len(&self) -> usize {
        self.num
    }

    /// Raises `scores[i]` to the largest product of `keys[i]` with the queries from `first_query(keys[i])` on.
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
            return self.few(simd);
        }
        // `LANES` queries times a number of keys whose sums fit the registers and are enough to hide each other's latency.
        match S::F32_LANES {
            16 => self.lanes::<S, 1, 12>(simd),
            8 => self.lanes::<S, 2, 6>(simd),
            4 => self.lanes::<S, 4, 3>(simd),
            _ => self.lanes::<S, LANES, 1>(simd),
        }
    }
}

impl<T: Element, F: Fn(u32) -> usize> RaiseScores<'_, T, F> {
    /// Before the `num` keys at `at`: prefetches that many later keys, and at the first call also those between.
    #[inline(always)]
    fn fetch_ahead(&self, at: usize, num: usize) {
        let keys = |range: Range<usize>| &self.keys[self.keys.len().min(range.start)..self.keys.len().min(range.end)];
        let start = if at == 0 { 0 } else { at + AHEAD };
        self.from.fetch(keys(start..at + AHEAD + num));
        self.from.fetch_first_lines(keys(at + FAR_AHEAD..at + FAR_AHEAD + num));
    }

    #[inline(always)]
    fn few<S: Simd>(self, simd: S) {
        let mut copy = vec![0.0; if as_f32::<T>(&[]).is_some() { 0 } else { self.queries.dim }];
        for (at, &key) in self.keys.iter().enumerate() {
            self.fetch_ahead(at, 1);
            let row = widened(self.from.row(key), &mut copy);
            let first = (self.first_query)(key);
            let score = &mut self.scores[at];
            for (i, q) in self.queries.data.chunks_exact(self.queries.dim).enumerate() {
                let product = dot(simd, q, row);
                *score = if i >= first && product > *score { product } else { *score };
            }
        }
    }

    /// Scores `N` keys at a time with a panel of queries, which is `V` vectors wide.
    #[inline(always)]
    fn lanes<S: Simd, const V: usize, const N: usize>(self, simd: S) {
        assert_eq!(V * S::F32_LANES, LANES, "vectors of a panel of queries");
        let Queries { num, dim, ref data } = *self.queries;
        let (data, _) = S::as_simd_f32s(data);
        let (q, _) = pulp::as_arrays::<V, _>(data);
        let mut copies = vec![0.0; if as_f32::<T>(&[]).is_some() { 0 } else { N * dim }];
        let mut products = vec![0.0; N * num.next_multiple_of(LANES)];
        for at in (0..self.keys.len()).step_by(N) {
            self.fetch_ahead(at, N);
            let keys = &self.keys[at..self.keys.len().min(at + N)];
            let key = |i: usize| keys[i.min(keys.len() - 1)];
            let mut rows: [&[f32]; N] = [&[]; N];
            let mut rest = &mut copies[..];
            for (i, row) in rows.iter_mut().enumerate() {
                let (copy, others) = rest.split_at_mut(rest.len().min(dim));
                rest = others;
                *row = widened(self.from.row(key(i)), copy);
            }
            let first: [usize; N] = core::array::from_fn(|i| (self.first_query)(key(i)));
            let scores = &mut self.scores[at..at + keys.len()];
            if first == [0; N] {
                let best = best_of_all::<S, V, N>(simd, q, dim, rows);
                for (score, best) in scores.iter_mut().zip(best) {
                    *score = score.max(best);
                }
            } else if first.iter().any(|&first| first < num) {
                all_products::<S, V, N>(simd, q, dim, rows, &mut products);
                for (n, (score, first)) in scores.iter_mut().zip(first).enumerate() {
                    let of_key = products.chunks_exact(LANES).skip(n).step_by(N).flatten();
                    *score = of_key.take(num).skip(first).fold(*score, |score, &product| score.max(product));
                }
            }
        }
    }
}

/// Products of a panel of queries with `N` keys. Each is summed from the first column to the last, independent of the others.
#[inline(always)]
fn products<S: Simd, const V: usize, const N: usize>(
    simd: S,
    q: &[[S::f32s; V]],
    rows: [&[f32]; N],
) -> [[S::f32s; V]; N] {
    // Head widths are multiples of four.
    let (q, _) = pulp::as_arrays::<4, _>(q);
    let mut columns: [&[[f32; 4]]; N] = [&[]; N];
    for n in 0..N {
        columns[n] = &pulp::as_arrays::<4, _>(rows[n]).0[..q.len()];
    }
    let mut sums = [[simd.splat_f32s(0.0); V]; N];
    for (step, q) in q.iter().enumerate() {
        for d in 0..4 {
            for n in 0..N {
                let x = simd.splat_f32s(columns[n][step][d]);
                for v in 0..V {
                    sums[n][v] = simd.mul_add_e_f32s(q[d][v], x, sums[n][v]);
                }
            }
        }
    }
    sums
}

#[inline(always)]
fn best_of_all<S: Simd, const V: usize, const N: usize>(
    simd: S,
    q: &[[S::f32s; V]],
    dim: usize,
    rows: [&[f32]; N],
) -> [f32; N] {
    let mut best = [simd.splat_f32s(MASKED); N];
    for q in q.chunks_exact(dim) {
        let sums = products::<S, V, N>(simd, q, rows);
        for n in 0..N {
            for &sum in &sums[n] {
                // The maximum of a number and a NaN depends on the processor.
                let is_greater = simd.less_than_f32s(best[n], sum);
                best[n] = simd.select_f32s(is_greater, sum, best[n]);
            }
        }
    }
    // No `map`: where it is not inlined, no vector instructions are used.
    let mut largest = [MASKED; N];
    for n in 0..N {
        largest[n] = simd.reduce_max_f32s(best[n]);
    }
    largest
}

/// `to` `[num / LANES, N, LANES]`.
#[inline(always)]
fn all_products<S: Simd, const V: usize, const N: usize>(
    simd: S,
    q: &[[S::f32s; V]],
    dim: usize,
    rows: [&[f32]; N],
    to: &mut [f32],
) {
    let (to, _) = S::as_mut_simd_f32s(to);
    let (to, _) = pulp::as_arrays_mut::<V, _>(to);
    for (q, to) in q.chunks_exact(dim).zip(to.chunks_exact_mut(N)) {
        to.copy_from_slice(&products::<S, V, N>(simd, q, rows));
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

    #[test]
    fn a_score_depends_neither_on_other_keys_nor_on_its_place() {
        const DIM: usize = 20;
        let value = |i: usize| ((i * i + 31 * i) % 1009) as f32 / 1009.0 - 0.4;
        let k: Vec<f32> = (0..90 * DIM).map(value).collect();
        let from = HeadKeys::new(&k, 1, 0, DIM);
        for num in [1, 3, 4, 16, 40] {
            let queries = Queries::new(num, DIM, |i, to| {
                to.iter_mut().enumerate().for_each(|(d, x)| *x = value(7 * i + d + 3));
            });
            let scores = |keys: &[u32], first: usize| {
                let mut scores = vec![MASKED; keys.len()];
                queries.raise_scores(from, keys, |_| first, &mut scores);
                scores
            };
            let all: Vec<u32> = (0..90).collect();
            let together = scores(&all, 0);
            for (&key, &score) in all.iter().zip(&together) {
                assert_eq!(scores(&[key], 0)[0].to_bits(), score.to_bits(), "key {key}, {num} queries");
            }
            // The same sums where some queries do not see the keys.
            let rest = scores(&all, 1);
            for (key, (score, rest)) in together.iter().zip(rest).enumerate() {
                assert!(rest <= *score, "key {key}, {num} queries");
            }
            let backwards: Vec<u32> = (0..90).rev().collect();
            assert!(scores(&backwards, 0).iter().rev().eq(&together), "{num} queries");
        }
    }
}
