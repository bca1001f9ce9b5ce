//! Helpers of the tests of the CPU path: inputs, a naive f32 implementation, and the error that arithmetic allows.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use wattn::cpu::{self, CpuTiling};
use wattn::{
    AttentionOutput, AttentionPlan, AttentionProblem, AttentionShape, Element, HostInputs, HostTensor, LSE_EMPTY, Mask,
};

pub mod bad_scores;
pub mod bad_values;
pub mod block_ops;
pub mod bound_selection;
pub mod certificate;
pub mod combinations;
pub mod covering;
pub mod golden;
pub mod gpu;
#[cfg(feature = "lm")]
pub mod lm;
pub mod matrices;
pub mod mixed;
pub mod modified;
pub mod recorded;
pub mod select;
pub mod selected;

/// Unit roundoff of f32, in which everything is accumulated.
pub const UNIT: f64 = 1.0 / (1u64 << 24) as f64;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Seeded random numbers in [-1, 1), rounded to `T`.
pub fn random<T: Element>(shape: [u32; 4], seed: u64) -> HostTensor<T> {
    let mut random = Random(seed);
    fill(shape, |_| random.unit())
}

/// A pattern of prime period, so that swapped blocks change the answer. Exact in every element type.
pub fn painted<T: Element>(shape: [u32; 4], step: usize) -> HostTensor<T> {
    fill(shape, |i| ((i * step % 251) as f32 - 125.0) / 128.0)
}

/// A tensor of `f(index)`.
pub fn fill<T: Element>(shape: [u32; 4], mut f: impl FnMut(usize) -> f32) -> HostTensor<T> {
    let mut tensor = HostTensor::zeros(shape);
    for (i, x) in tensor.data_mut().iter_mut().enumerate() {
        *x = T::from_f32(f(i));
    }
    tensor
}

/// A problem with its inputs.
#[derive(Clone)]
pub struct Case<T> {
    pub shape: AttentionShape,
    pub mask: Mask,
    pub q: HostTensor<T>,
    pub k: HostTensor<T>,
    pub v: HostTensor<T>,
    pub seq_lens_kv: Option<Vec<u32>>,
    /// The seed of the inputs; 0 when they are painted.
    pub seed: u64,
}

// Enough to make the case again; printed tensors would hide it.
impl<T> core::fmt::Debug for Case<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} {} seed {} {:?}", self.shape, self.mask, self.seed, self.seq_lens_kv)
    }
}

impl<T: Element> Case<T> {
    pub fn random(shape: AttentionShape, mask: Mask, seed: u64) -> Self {
        let [q, k, v] = [(shape.q(), 1), (shape.k(), 2), (shape.v(), 3)].map(|(of, n)| random(of, seed * 3 + n));
        Self { shape, mask, q, k, v, seq_lens_kv: None, seed }
    }

    pub fn painted(shape: AttentionShape, mask: Mask) -> Self {
        let [q, k, v] = [(shape.q(), 7), (shape.k(), 11), (shape.v(), 13)].map(|(of, step)| painted(of, step));
        Self { shape, mask, q, k, v, seq_lens_kv: None, seed: 0 }
    }

    pub fn problem(&self) -> AttentionProblem {
        AttentionProblem::new(self.shape, T::DTYPE).with_mask(self.mask)
    }

    pub fn inputs(&self) -> HostInputs<'_, T> {
        let inputs = HostInputs::new(&self.q, &self.k, &self.v);
        self.seq_lens_kv.as_deref().map_or(inputs, |lens| inputs.with_seq_lens_kv(lens))
    }

    pub fn attend(&self, tiling: &CpuTiling) -> AttentionOutput {
        cpu::attend_with_tiling(&self.problem(), &self.inputs(), tiling).unwrap()
    }

    pub fn oracle(&self) -> AttentionOutput {
        cpu::oracle::attend(&self.problem(), &self.inputs()).unwrap()
    }

    /// Whether a row sees a key.
    pub fn sees(&self, [b, q, _]: [u32; 3], key: u32) -> bool {
        let len = self.inputs().seq_len_kv(b);
        key < len && sees(self.mask, q, key, self.shape.seq_len_q, len)
    }

    /// The keys that a row sees.
    pub fn keys(&self, row: [u32; 3]) -> impl Iterator<Item = u32> {
        (0..self.shape.seq_len_kv).filter(move |&key| self.sees(row, key))
    }

    /// The KV head of a row.
    pub fn kv_head(&self, [_, _, h]: [u32; 3]) -> usize {
        (h / self.shape.group_size()) as usize
    }

    /// Naive f32 attention, two passes over a row of scores, laid out like out. Weights are rounded as `exp` says before they are
    /// multiplied with values; their sum is of f32 weights.
    pub fn naive(&self, exp: Exp) -> Vec<f32> {
        let mut out = Vec::new();
        for row in rows(&self.shape) {
            let [b, q, h] = row.map(|n| n as usize);
            let scale = 1.0 / (self.shape.head_dim as f32).sqrt();
            let mut scores = Vec::new();
            for key in self.keys(row) {
                let k = self.k.row(b, key as usize, self.kv_head(row));
                let mut dot = 0.0f32;
                for (x, y) in self.q.row(b, q, h).iter().zip(k) {
                    dot += x.to_f32() * y.to_f32();
                }
                scores.push((key, dot * scale));
            }
            let max = scores.iter().fold(f32::MIN, |max, &(_, score)| max.max(score));
            let mut sum = 0.0f32;
            let mut acc = vec![0.0f32; self.shape.head_dim_v as usize];
            for (key, score) in scores {
                let weight = (score - max).exp();
                sum += weight;
                let weight = exp.round_weight(weight);
                for (to, v) in acc.iter_mut().zip(self.v.row(b, key as usize, self.kv_head(row))) {
                    *to += weight * v.to_f32();
                }
            }
            out.extend(acc.iter().map(|x| if sum > 0.0 { x / sum } else { 0.0 }));
        }
        out
    }

    /// Asserts that every element of `got` is within [`bound`] of the oracle, and returns the largest error of out.
    pub fn check(&self, got: &AttentionOutput, what: &str) -> f64 {
        self.check_with(got, Exp::Cpu, what)
    }

    /// [`check`](Self::check), for the exponential of a device.
    pub fn check_with(&self, got: &AttentionOutput, exp: Exp, what: &str) -> f64 {
        recorded::record_output(got);
        let mut abs = self.clone();
        abs.v.data_mut().iter_mut().for_each(|v| *v = T::from_f32(v.to_f32().abs()));
        let mut worst = 0.0f64;
        for row in rows(&self.shape) {
            let [b, q, h] = row;
            let (expected, expected_lse) = cpu::oracle::attend_row(&self.problem(), &self.inputs(), b, q, h);
            let out = got.out.row(b as usize, q as usize, h as usize);
            let lse = got.lse.row(b as usize, q as usize, h as usize)[0];
            if self.keys(row).next().is_none() {
                assert!(
                    out.iter().all(|&x| x == 0.0) && lse == LSE_EMPTY,
                    "{what}: {row:?} sees no key: {out:?} {lse}"
                );
                continue;
            }
            let (value, _) = cpu::oracle::attend_row(&abs.problem(), &abs.inputs(), b, q, h);
            let (bound_out, bound_lse) = bound(&Magnitudes { value, ..self.scores(row) }, self.shape.head_dim, exp);
            for d in 0..out.len() {
                let error = (f64::from(out[d]) - expected[d]).abs();
                // Not `error > bound`, which a NaN would pass.
                assert!(
                    error <= bound_out[d],
                    "{what}: {row:?} d {d}: {} is {error:e} from {}, allowed {:e}",
                    out[d],
                    expected[d],
                    bound_out[d]
                );
                worst = worst.max(error);
            }
            let error = (f64::from(lse) - expected_lse).abs();
            assert!(
                error <= bound_lse,
                "{what}: {row:?} lse {lse} is {error:e} from {expected_lse}, allowed {bound_lse:e}"
            );
        }
        worst
    }

    /// [`check`](Self::check), and: the largest error is at most twice that of naive attention, plus one rounding. Over
    /// fewer than 512 elements naive attention may be almost exact by luck, and only the bound counts.
    pub fn check_against_naive(&self, got: &AttentionOutput, what: &str) {
        self.check_against_naive_with(got, Exp::Cpu, what);
    }

    /// [`check_against_naive`](Self::check_against_naive), for the exponential of a device.
    pub fn check_against_naive_with(&self, got: &AttentionOutput, exp: Exp, what: &str) {
        let worst = self.check_with(got, exp, what);
        if got.out.data().len() < 512 {
            return;
        }
        let (mut worst_naive, mut largest) = (0.0f64, 0.0f64);
        for (naive, oracle) in self.naive(exp).iter().zip(self.oracle_f64()) {
            worst_naive = worst_naive.max((f64::from(*naive) - oracle).abs());
            largest = largest.max(oracle.abs());
        }
        // The naive exponential is exact to half a unit; a device's need not be.
        let largest_score = rows(&self.shape).map(|row| self.scores(row).score).fold(0.0, f64::max);
        let device = largest * exp.inaccuracy(largest_score);
        let allowed = 2.0 * worst_naive + largest * UNIT + device;
        assert!(worst <= allowed, "{what}: error {worst:e}, naive {worst_naive:e}, allowed {allowed:e}");
    }

    fn oracle_f64(&self) -> impl Iterator<Item = f64> {
        rows(&self.shape).flat_map(|[b, q, h]| cpu::oracle::attend_row(&self.problem(), &self.inputs(), b, q, h).0)
    }

    pub fn scores(&self, row: [u32; 3]) -> Magnitudes {
        let [b, q, h] = row.map(|n| n as usize);
        let (mut num_keys, mut score, mut largest_value) = (0, 0.0f64, 0.0f64);
        for key in self.keys(row) {
            let v = self.v.row(b, key as usize, self.kv_head(row));
            largest_value = v.iter().fold(largest_value, |largest, v| largest.max(f64::from(v.to_f32().abs())));
            let k = self.k.row(b, key as usize, self.kv_head(row));
            let products =
                self.q.row(b, q, h).iter().zip(k).map(|(q, k)| (f64::from(q.to_f32()) * f64::from(k.to_f32())).abs());
            score = score.max(products.sum::<f64>() / f64::from(self.shape.head_dim).sqrt());
            num_keys += 1;
        }
        Magnitudes { num_keys, score, value: Vec::new(), largest_value }
    }
}

/// One head width, one key head for each `group` query heads.
pub fn shape(batch_size: u32, [seq_len_q, seq_len_kv]: [u32; 2], [num_kv_heads, group]: [u32; 2]) -> AttentionShape {
    let num_q_heads = num_kv_heads * group;
    AttentionShape { batch_size, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, head_dim: 16, head_dim_v: 16 }
}

/// Every kind of mask, with windows that miss some rows, see one key, and see to both sides; the last one takes no lengths of sequences.
pub const MASKS: [Mask; 8] = [
    Mask::Full,
    Mask::Causal,
    Mask::Window { left: Some(0), right: Some(0) },
    Mask::Window { left: Some(5), right: Some(0) },
    Mask::Window { left: Some(3), right: Some(7) },
    Mask::Window { left: None, right: Some(6) },
    Mask::Window { left: Some(4), right: None },
    Mask::CausalAt { first: 9 },
];

/// The masks that go with lengths of sequences.
pub fn masks_for_lengths() -> impl Iterator<Item = Mask> {
    MASKS.into_iter().filter(|mask| !matches!(mask, Mask::CausalAt { .. }))
}

/// Whether a query sees a key, from the definition of the mask.
pub fn sees(mask: Mask, q_index: u32, key: u32, seq_len_q: u32, seq_len_kv: u32) -> bool {
    let distance = i64::from(key) - (i64::from(q_index) + i64::from(seq_len_kv) - i64::from(seq_len_q));
    match mask {
        Mask::Full => true,
        Mask::Causal => distance <= 0,
        Mask::Window { left, right } => {
            left.is_none_or(|left| distance >= -i64::from(left)) && right.is_none_or(|right| distance <= right.into())
        }
        Mask::CausalAt { first } => key <= first + q_index,
        mask => panic!("{mask:?} is new"),
    }
}

/// The quantities that the error of one row depends on, in exact arithmetic.
pub struct Magnitudes {
    /// Keys that the row sees.
    pub num_keys: usize,
    /// Largest `softmax_scale * sum |q| |k|` over those keys.
    pub score: f64,
    /// `sum weight * |v|`, `[head_dim_v]`.
    pub value: Vec<f64>,
    /// Largest `|v|` over those keys.
    pub largest_value: f64,
}

/// The exponential that computes the weights.
#[derive(Clone, Copy, Debug)]
pub enum Exp {
    /// Our own: 2 ulp.
    Cpu,
    /// WGSL's `exp2(x)`: `3 + 2 |x|` ulp (WGSL specification, accuracy of built-ins), with one rescaling per tile of this many keys.
    Gpu(u32),
    /// The same, with weights rounded to f16: factors of matrix products.
    Matrix(u32),
}

impl Exp {
    /// The exponential of a plan's kernels.
    pub fn of(plan: &AttentionPlan) -> Self {
        let tile_kv = plan.tiling().tile_kv();
        if plan.tier().matrix() { Self::Matrix(tile_kv) } else { Self::Gpu(tile_kv) }
    }

    /// The rounding of a weight before it is multiplied by a value.
    pub fn round_weight(self, weight: f32) -> f32 {
        match self {
            Self::Cpu | Self::Gpu(_) => weight,
            Self::Matrix(_) => half::f16::from_f32(weight).to_f32(),
        }
    }

    /// Relative error of a rounded weight, and the absolute error of weights that underflow, where the largest weight is at least 1: the
    /// kernels shift their weights up by seven bits, and a subnormal f16 is off by up to `2^-25`.
    fn rounding(self) -> (f64, f64) {
        match self {
            Self::Cpu | Self::Gpu(_) => (0.0, f64::from(f32::MIN_POSITIVE)),
            Self::Matrix(_) => (2f64.powi(-11), 2f64.powi(-32)),
        }
    }

    /// Relative error of one exponential of the difference of two scores, beyond a rounding to nearest.
    fn inaccuracy(self, score: f64) -> f64 {
        match self {
            Self::Cpu => 0.0,
            // A unit in the last place is two roundoffs.
            Self::Gpu(_) | Self::Matrix(_) => (3.0 + 2.0 * 2.0 * score * core::f64::consts::LOG2_E) * 2.0 * UNIT,
        }
    }

    /// The sum of errors of a weight's exponentials, products and rescalings.
    fn error(self, score: f64, num_keys: f64) -> f64 {
        match self {
            Self::Cpu => 6.0 * (num_keys + 1.0) * UNIT,
            Self::Gpu(tile_kv) | Self::Matrix(tile_kv) => {
                ((num_keys / f64::from(tile_kv)).ceil() + 1.0) * (self.inaccuracy(score) + 2.0 * UNIT)
            }
        }
    }
}

/// The largest error of one row that f32 arithmetic allows: of each element of out, and of lse.
///
/// Inputs are exact. With `gamma(n) = n u / (1 - n u)`, `u` the unit roundoff:
/// - A score is a sum of `head_dim` products, scaled: off by `delta <= gamma(head_dim + 3) * max(scale * sum |q| |k|)`.
/// - A weight is `exp(score - max)`: the exponential is off by `e` (see [`Exp`]). Every rescaling, at most one per key,
///   adds one exponential and one product, and all subtractions of a row together `2 u * score`. Scores and maximum are
///   both off by `delta`, so a weight is off by the factor `exp(2 delta + 4 u * score + (num_keys + 1) (e + 2 u))`.
/// - The sums of weights and of weighted values, `num_keys` long, each add `gamma(2 num_keys + 2)`; then one division. That covers
///   units that cut off: a product of `t <= 16` keys aligns its terms and the sum so far to the largest, with two bits more than f32,
///   and drops the rest of each and of the whole, `(t + 1) / 4 + 1` ulp or `t / 2 + 2.5` roundings, less than two roundings a key.
///   (Of a score, `head_dim` long, with as many keys as columns: less than `head_dim + 3`.)
/// - A weight below `2^-126` may be 0; one that is rounded to f16 adds what [`Exp`] says.
pub fn bound(row: &Magnitudes, head_dim: u32, exp: Exp) -> (Vec<f64>, f64) {
    let gamma = |n: f64| n * UNIT / (1.0 - n * UNIT);
    let num_keys = row.num_keys as f64;
    let delta = gamma(f64::from(head_dim) + 3.0) * row.score;
    let (rounding, underflow) = exp.rounding();
    let exponent = 2.0 * delta + 4.0 * UNIT * row.score + exp.error(row.score, num_keys) + rounding;
    let weight = exponent.exp_m1();
    let sum = gamma(2.0 * num_keys + 2.0);
    let one = (1.0 + weight) * (1.0 + sum);
    let relative = one * one * (1.0 + UNIT) - 1.0;
    // The errors of the weighted values, and of the sum that divides them.
    let lost = num_keys * underflow;
    let out = row.value.iter().map(|value| relative * value + lost * (row.largest_value + value)).collect();
    // lse = max + ln(sum), rounded once.
    let lse = delta + weight + sum + lost + UNIT * (row.score + num_keys.max(1.0).ln()) * 2.0;
    (out, lse)
}

/// `[batch, q_index, q_head]` of every row, in the order of memory.
pub fn rows(shape: &AttentionShape) -> impl Iterator<Item = [u32; 3]> + use<> {
    let AttentionShape { batch_size, seq_len_q, num_q_heads, .. } = *shape;
    (0..batch_size).flat_map(move |b| (0..seq_len_q).flat_map(move |q| (0..num_q_heads).map(move |h| [b, q, h])))
}
