//! Cases for block-sparse attention, and its comparison with the f64 oracle.

use wattn::cpu::oracle;
use wattn::{
    AttentionOutput, AttentionProblem, BlockListSpec, Element, Granularity, HostBlockLists, LSE_EMPTY, Mask, PADDING,
};

use super::recorded::record_output;
use super::{Case, Exp, Magnitudes, Random, UNIT, bound, rows};

/// Attention to lists of blocks.
#[derive(Clone)]
pub struct SelectedCase<T> {
    pub name: String,
    pub case: Case<T>,
    pub selection: BlockListSpec,
    pub blocks: HostBlockLists,
}

/// A list for each KV head and 5 queries; blocks of 8, sinks of 3, a window of 6.
pub const SELECTION: BlockListSpec =
    BlockListSpec::new(5, 8, 4).with_granularity(Granularity::KvHead).with_sink_size(3).with_window_size(6);

impl<T: Element> SelectedCase<T> {
    /// With lists of a caller's own: any number of blocks, starts anywhere below the length of the sequence, some blocks adjacent, reaching
    /// into sinks, window, and past the end.
    pub fn random(name: impl Into<String>, case: Case<T>, selection: BlockListSpec, seed: u64) -> Self {
        let mut blocks = HostBlockLists::empty(selection.indices_shape(&case.shape));
        let mut random = Random(seed);
        let mut below = move |n: u32| ((random.bits() >> 32) % u64::from(n.max(1))) as u32;
        for [b, s, m] in lists(&blocks) {
            let len = case.inputs().seq_len_kv(b);
            let mean_gap = len / selection.max_blocks;
            let (mut list, mut start) = (Vec::new(), below(mean_gap + 1));
            while start < len && (list.len() as u32) < selection.max_blocks {
                list.push(start);
                start += selection.block_size + if below(3) == 0 { 0 } else { below(mean_gap + 2) };
            }
            if below(6) == 0 {
                list.clear();
            }
            blocks.set_list(b, s, m, &list);
        }
        Self { name: name.into(), case, selection, blocks }
    }

    pub fn problem(&self) -> AttentionProblem {
        self.case.problem().with_blocks(self.selection)
    }

    /// The keys that a row attends to.
    pub fn keys(&self, [b, q, h]: [u32; 3]) -> Vec<u32> {
        oracle::attended_keys(&self.problem(), self.case.inputs().seq_len_kv(b), &self.blocks, b, q, h)
    }

    /// Asserts that every element is within the bound of the oracle; and, over at least 512 elements, that the largest
    /// error is at most twice that of naive f32 attention, with weights rounded as `exp` says, plus one rounding.
    pub fn check(&self, got: &AttentionOutput, exp: Exp) {
        record_output(got);
        let (problem, inputs, what) = (self.problem(), self.case.inputs(), &self.name);
        assert_eq!((got.out.shape(), got.lse.shape()), (self.case.shape.out(), self.case.shape.lse()), "{what}");
        let mut abs = self.case.clone();
        abs.v.data_mut().iter_mut().for_each(|v| *v = T::from_f32(v.to_f32().abs()));
        let (mut worst, mut worst_naive, mut largest, mut largest_score) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
        for row in rows(&self.case.shape) {
            let [b, q, h] = row;
            let (expected, expected_lse) = oracle::attend_row(&problem, &inputs.with_blocks(&self.blocks), b, q, h);
            let out = got.out.row(b as usize, q as usize, h as usize);
            let lse = got.lse.row(b as usize, q as usize, h as usize)[0];
            let keys = self.keys(row);
            if keys.is_empty() {
                assert!(out.iter().all(|&x| x == 0.0) && lse == LSE_EMPTY, "{what} {row:?}: no key: {out:?} {lse}");
                continue;
            }
            let (value, _) = oracle::attend_row(&problem, &abs.inputs().with_blocks(&self.blocks), b, q, h);
            let (score, naive) = self.naive(row, &keys, exp);
            let values = keys.iter().flat_map(|&key| self.case.v.row(b as usize, key as usize, self.case.kv_head(row)));
            let largest_value = values.fold(0.0f64, |largest, v| largest.max(f64::from(v.to_f32().abs())));
            let magnitudes = Magnitudes { num_keys: keys.len(), score, value, largest_value };
            let (bound_out, bound_lse) = bound(&magnitudes, self.case.shape.head_dim, exp);
            for d in 0..out.len() {
                let error = (f64::from(out[d]) - expected[d]).abs();
                // Not `error > bound`, which a NaN would pass.
                assert!(error <= bound_out[d], "{what} {row:?} d {d}: {} off {} by {error:e}", out[d], expected[d]);
                worst = worst.max(error);
                worst_naive = worst_naive.max((f64::from(naive[d]) - expected[d]).abs());
                largest = largest.max(expected[d].abs());
            }
            let error = (f64::from(lse) - expected_lse).abs();
            assert!(error <= bound_lse, "{what} {row:?}: lse {lse} off {expected_lse} by {error:e}");
            largest_score = largest_score.max(score);
        }
        if got.out.data().len() >= 512 {
            let allowed = 2.0 * worst_naive + largest * (UNIT + exp.inaccuracy(largest_score));
            assert!(worst <= allowed, "{what}: error {worst:e}, naive {worst_naive:e}, allowed {allowed:e}");
        }
    }

    /// The largest `softmax_scale * sum |q| |k|`, and naive f32 attention, over these keys.
    fn naive(&self, row: [u32; 3], keys: &[u32], exp: Exp) -> (f64, Vec<f32>) {
        let [b, q, h] = row.map(|n| n as usize);
        let (kv_head, scale) = (self.case.kv_head(row), self.problem().softmax_scale());
        let (mut largest, mut scores) = (0.0f64, Vec::new());
        for &key in keys {
            let k = self.case.k.row(b, key as usize, kv_head);
            let (mut dot, mut abs) = (0.0f32, 0.0f64);
            for (x, y) in self.case.q.row(b, q, h).iter().zip(k) {
                dot += x.to_f32() * y.to_f32();
                abs += f64::from((x.to_f32() * y.to_f32()).abs());
            }
            largest = largest.max(abs * f64::from(scale));
            scores.push(dot * scale);
        }
        let max = scores.iter().fold(f32::MIN, |max, &score| max.max(score));
        let (mut sum, mut acc) = (0.0f32, vec![0.0f32; self.case.shape.head_dim_v as usize]);
        for (&key, score) in keys.iter().zip(scores) {
            let weight = (score - max).exp();
            sum += weight;
            let weight = exp.round_weight(weight);
            let v = self.case.v.row(b, key as usize, kv_head);
            acc.iter_mut().zip(v).for_each(|(to, v)| *to += weight * v.to_f32());
        }
        (largest, acc.into_iter().map(|x| x / sum).collect())
    }
}

/// `[batch, set, q_block]` of every list.
pub fn lists(blocks: &HostBlockLists) -> Vec<[u32; 3]> {
    let [batches, sets, q_blocks, _] = blocks.shape();
    (0..batches).flat_map(|b| (0..sets).flat_map(move |s| (0..q_blocks).map(move |m| [b, s, m]))).collect()
}

/// Callers' lists: block sizes from 1 to 128, every granularity, with and without window and sinks, causal and full masks, prefill and
/// decode, different lengths in a batch, dense beginnings.
pub fn callers_cases<T: Element>() -> Vec<SelectedCase<T>> {
    let mut cases = Vec::new();
    for (i, block_size) in [1, 2, 3, 7, 8, 16, 31, 32, 63, 64, 100, 128].into_iter().enumerate() {
        for (j, lens) in [[1, 300], [13, 170], [40, 40], [21, 9]].into_iter().enumerate() {
            let n = i + 5 * j;
            let mask = if n % 4 == 3 { Mask::Full } else { Mask::Causal };
            let causal = u32::from(mask == Mask::Causal);
            let selection = BlockListSpec::new([1, 4, 5, 16, 64][n % 5], block_size, 1 + (100 / block_size).min(20))
                .with_granularity(Granularity::ALL[n % 3])
                .with_sink_size(causal * [0, 3, 8][n % 3])
                .with_window_size(causal * [6, 0, 1, 40][n / 2 % 4])
                .with_dense_below([0, 0, 30][n % 3]);
            let mut case = Case::random(super::shape(2, lens, [2, 1 + n as u32 % 3]), mask, n as u64);
            if n % 2 == 0 {
                case.seq_lens_kv = Some(vec![lens[1] - lens[1] / 3, lens[1] * (n as u32 % 3 / 2)]);
            }
            let name = format!("{} {case:?} {selection:?}", T::DTYPE);
            cases.push(SelectedCase::random(name, case, selection, n as u64));
        }
    }
    cases
}

/// Violations of a rule: its name, and a list `[PADDING; max_blocks]` that breaks it, for [`SELECTION`] and 40 keys.
pub fn broken_lists() -> Vec<(&'static str, u32, [u32; 4])> {
    vec![
        ("duplicate", 2, [8, 8, PADDING, PADDING]),
        ("descending", 2, [24, 8, PADDING, PADDING]),
        ("overlapping", 3, [0, 10, 17, PADDING]),
        ("at the end", 1, [40, PADDING, PADDING, PADDING]),
        ("past the end", 2, [8, 1 << 31, PADDING, PADDING]),
        ("padding that counts", 2, [8, PADDING, PADDING, PADDING]),
        ("count too large", 5, [0, 8, 16, 24]),
    ]
}
