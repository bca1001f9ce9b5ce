//! Attention whose scores are modified: cases, and what f32 arithmetic may lose of them.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use half::{bf16, f16};
use wattn::cpu::{oracle, twins};
use wattn::{
    Alibi, AnyHostTensor, AttentionOutput, AttentionPlan, AttentionProblem, BatchIndex, Bias, BlockListSpec, Context,
    DType, Element, HostBlockLists, HostInputs, HostTensor, LEAST_SCORE, LSE_EMPTY, MergeProblem, ScoreMod, Sinks,
    Softcap, Tier, Tiling,
};

use super::gpu::check_twin;
use super::recorded::record_output;
use super::selected::{SELECTION, SelectedCase};
use super::{Case, Exp, Magnitudes, Random, bound, rows};

/// The tensor of a bias, of any element type.
#[derive(Clone, Debug)]
pub enum Tensor {
    F32(HostTensor<f32>),
    F16(HostTensor<f16>),
    BF16(HostTensor<bf16>),
}

impl Tensor {
    pub fn any(&self) -> AnyHostTensor<'_> {
        match self {
            Self::F32(tensor) => tensor.into(),
            Self::F16(tensor) => tensor.into(),
            Self::BF16(tensor) => tensor.into(),
        }
    }

    fn new(shape: [u32; 4], dtype: DType, f: impl FnMut(usize) -> f32) -> Self {
        match dtype {
            DType::F32 => Self::F32(super::fill(shape, f)),
            DType::F16 => Self::F16(super::fill(shape, f)),
            DType::BF16 => Self::BF16(super::fill(shape, f)),
            dtype => panic!("{dtype:?} is new"),
        }
    }
}

/// A case whose scores pass through a chain.
#[derive(Clone)]
pub struct ModifiedCase<T> {
    pub case: Case<T>,
    pub mods: Vec<ScoreMod>,
    pub sinks: Option<Sinks>,
    pub tensors: Vec<(&'static str, Tensor)>,
    pub lists: Option<(BlockListSpec, HostBlockLists)>,
}

impl<T> core::fmt::Debug for ModifiedCase<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} {:?}", self.case, self.mods)
    }
}

/// Names of the chains that every path is tested with.
pub const CHAINS: [&str; 11] = [
    "softcap",
    "alibi",
    "slopes",
    "bias",
    "bias of keys",
    "bias of rows in turns",
    "mask",
    "sinks",
    "mask, sinks of 0",
    "softcap, bias, alibi",
    "alibi, mask, softcap, shared bias",
];

impl<T: Element> ModifiedCase<T> {
    /// A case with one of [`CHAINS`].
    pub fn new(case: Case<T>, chain: &str) -> Self {
        let shape = case.shape;
        let [batch, heads, queries, keys] = [shape.batch_size, shape.num_q_heads, shape.seq_len_q, shape.seq_len_kv];
        let seed = case.seed;
        let mut this = Self { case, mods: Vec::new(), sinks: None, tensors: Vec::new(), lists: None };
        let slopes: Vec<f32> = (0..heads).map(|head| 0.3 - 0.1 * head as f32).collect();
        let full = [batch, heads, queries, keys];
        match chain {
            "softcap" => this.add(Softcap::new(0.7)),
            "alibi" => this.add(Alibi::published()),
            "slopes" => this.add(Alibi::with_slopes(&slopes)),
            "bias" => this.bias(Bias::new("bias", full, DType::F32), seed, 3.0),
            "bias of keys" => this.bias(Bias::new("weights", [1, 1, 1, keys], DType::BF16), seed, 3.0),
            "bias of rows in turns" => {
                let turns = BatchIndex::Modulo(2);
                this.bias(Bias::new("turns", [2, heads, queries, 1], DType::F16).with_batch_index(turns), seed, 1.0);
            }
            "mask" => this.mask(Bias::new("mask", [batch, 1, queries, keys], DType::F16), seed),
            "sinks" => {
                // One of no weight, and one beside which nothing counts.
                let number = |head: usize| [0.7, -300.0, 1.5, 300.0][head % 4];
                let sinks = Tensor::new([1, 1, 1, heads], DType::BF16, number);
                this.sinks = Some(Sinks::Learned(DType::BF16));
                this.tensors.push(("sinks", sinks));
            }
            "mask, sinks of 0" => {
                this.mask(Bias::new("mask", [1, heads, queries, keys], DType::F32), seed);
                this.sinks = Some(Sinks::Zero);
            }
            "softcap, bias, alibi" => {
                this.add(Softcap::new(2.0));
                this.bias(Bias::new("bias", [1, heads, queries, keys], DType::F16), seed, 2.0);
                this.add(Alibi::published());
            }
            "alibi, mask, softcap, shared bias" => {
                this.add(Alibi::with_slopes(&slopes));
                this.mask(Bias::new("mask", [1, 1, queries, keys], DType::F32), seed);
                // Not at the end: the cap would bring hidden keys back.
                let halves = BatchIndex::Divided(2);
                let shape = [batch.div_ceil(2), 1, 1, keys];
                this.bias(Bias::new("shared", shape, DType::F32).with_batch_index(halves), seed + 1, 2.0);
            }
            chain => panic!("no chain {chain}"),
        }
        this
    }

    pub fn add(&mut self, modifier: impl Into<ScoreMod>) {
        self.mods.push(modifier.into());
    }

    /// A case with one of [`CHAINS`] over random lists of blocks.
    pub fn with_lists(case: Case<T>, chain: &str) -> Self {
        let listed = SelectedCase::random(chain, case, SELECTION, 11);
        Self { lists: Some((listed.selection, listed.blocks)), ..Self::new(listed.case, chain) }
    }

    /// The keys that a row sees unless a modifier hides them.
    fn keys(&self, row: [u32; 3]) -> Vec<u32> {
        match &self.lists {
            None => self.case.keys(row).collect(),
            Some((_, blocks)) => {
                let [batch, query, head] = row;
                let seq_len_kv = self.case.inputs().seq_len_kv(batch);
                oracle::attended_keys(&self.problem(), seq_len_kv, blocks, batch, query, head)
            }
        }
    }

    /// The sink of a query head.
    pub fn sink(&self, head: u32) -> Option<f64> {
        self.sinks.map(|sinks| match sinks {
            Sinks::Zero => 0.0,
            _ => f64::from(self.tensors.iter().find(|(name, _)| *name == "sinks").unwrap().1.any().get(head as usize)),
        })
    }

    /// Adds a bias of random numbers up to `size`.
    pub fn bias(&mut self, bias: Bias, seed: u64, size: f32) {
        let mut random = Random(seed ^ 0xb1a5);
        self.tensors.push((bias.name(), Tensor::new(bias.shape(), bias.dtype(), |_| random.unit() * size)));
        self.add(bias);
    }

    /// Adds a bias that hides a third of the keys, each by another number; some rows see nothing.
    pub fn mask(&mut self, bias: Bias, seed: u64) {
        let (mut random, keys) = (Random(seed ^ 0x3a5c), bias.shape()[3].max(1) as usize);
        // Also the least number, and one that is just low enough.
        let hidden = match bias.dtype() {
            DType::F32 => [f32::NEG_INFINITY, f32::MIN, 1.02 * LEAST_SCORE],
            _ => [f32::NEG_INFINITY; 3],
        };
        let number = |at: usize| {
            let hides = at / keys % 3 == 1 || random.bits().is_multiple_of(3);
            if hides { hidden[at % 3] } else { random.unit() }
        };
        self.tensors.push((bias.name(), Tensor::new(bias.shape(), bias.dtype(), number)));
        self.add(bias);
    }

    pub fn problem(&self) -> AttentionProblem {
        let problem = self.sinks.map_or_else(|| self.case.problem(), |sinks| self.case.problem().with_sinks(sinks));
        let problem = match &self.lists {
            Some((selection, _)) => problem.with_blocks(*selection),
            None => problem,
        };
        self.mods.iter().cloned().fold(problem, AttentionProblem::with_score_mod)
    }

    /// Hands over inputs that borrow the tensors by name.
    pub fn with_inputs<R>(&self, work: impl FnOnce(&HostInputs<'_, T>) -> R) -> R {
        let tensors: Vec<_> = self.tensors.iter().map(|(name, tensor)| (*name, tensor.any())).collect();
        let inputs = self.case.inputs().with_tensors(&tensors);
        work(&match &self.lists {
            Some((_, blocks)) => inputs.with_blocks(blocks),
            None => inputs,
        })
    }

    /// What the chain makes of a score, in f64, and the sum of the magnitudes that it meets; none where the key is hidden.
    fn modified(&self, [batch, query, head]: [u32; 3], key: u32, dot: f64, size: f64) -> Option<(f64, f64)> {
        let shape = &self.case.shape;
        let position = i64::from(query) + i64::from(self.case.inputs().seq_len_kv(batch)) - i64::from(shape.seq_len_q);
        let (mut score, mut magnitude) = (dot, size);
        for modifier in &self.mods {
            match modifier {
                ScoreMod::Softcap(softcap) => {
                    let cap = f64::from(softcap.cap());
                    score = cap * (score / cap).tanh();
                    magnitude += score.abs();
                }
                ScoreMod::Alibi(alibi) => {
                    let slope = f64::from(alibi.slopes(shape.num_q_heads)[head as usize]);
                    let by = slope * (position - i64::from(key)).abs() as f64;
                    (score, magnitude) = (score - by, magnitude + by.abs());
                }
                ScoreMod::Bias(bias) => {
                    let of_batch = match bias.batch_index() {
                        BatchIndex::Each => batch,
                        BatchIndex::Divided(n) => batch / n,
                        BatchIndex::Modulo(n) => batch % n,
                        rule => panic!("{rule:?} is new"),
                    };
                    let index = [of_batch, head, query, key];
                    let at = bias.shape().iter().zip(index).fold(0, |at, (&size, i)| at * size + i % size);
                    let (_, tensor) = self.tensors.iter().find(|(name, _)| *name == bias.name()).unwrap();
                    let by = f64::from(tensor.any().get(at as usize));
                    score += by;
                    if score <= f64::from(LEAST_SCORE) {
                        return None;
                    }
                    magnitude += by.abs();
                }
                modifier => panic!("{modifier:?} is new"),
            }
        }
        Some((score, magnitude))
    }

    /// Asserts that every element is within the bound of the oracle. Errors of a modifier are at most those of as many products as the
    /// head is wide, of the terms that it adds: a tangent is off by a few ulp, a sum by half of one.
    pub fn check(&self, got: &AttentionOutput, exp: Exp, what: &str) {
        record_output(got);
        let shape = &self.case.shape;
        let problem = self.problem();
        for row in rows(shape) {
            let [b, q, h] = row;
            let (expected, expected_lse) = self.with_inputs(|inputs| oracle::attend_row(&problem, inputs, b, q, h));
            let [b, q, h] = row.map(|n| n as usize);
            let (out, lse) = (got.out.row(b, q, h), got.lse.row(b, q, h)[0]);
            let kv_head = self.case.kv_head(row);
            let (mut most, mut largest_value, mut sum) = (0.0f64, 0.0f64, 0.0f64);
            let mut value = vec![0.0; shape.head_dim_v as usize];
            let mut num_keys = 0;
            for key in self.keys(row) {
                let k = self.case.k.row(b, key as usize, kv_head);
                let products: Vec<f64> = (self.case.q.row(b, q, h).iter().zip(k))
                    .map(|(x, y)| f64::from(x.to_f32()) * f64::from(y.to_f32()))
                    .collect();
                let scale = f64::from(problem.softmax_scale());
                let dot = scale * products.iter().sum::<f64>();
                let size = scale * products.iter().map(|x| x.abs()).sum::<f64>();
                let Some((score, magnitude)) = self.modified(row, key, dot, size) else { continue };
                num_keys += 1;
                most = most.max(magnitude);
                let weight = (score - expected_lse).exp();
                sum += weight;
                let weight = weight / (1.0 + self.sink(row[2]).map_or(0.0, |sink| (sink - expected_lse).exp()));
                for (to, v) in value.iter_mut().zip(self.case.v.row(b, key as usize, kv_head)) {
                    let v = f64::from(v.to_f32().abs());
                    *to += weight * v;
                    largest_value = largest_value.max(v);
                }
            }
            if num_keys == 0 {
                assert!(
                    out.iter().all(|&x| x == 0.0) && lse == LSE_EMPTY,
                    "{what}: {row:?} sees no key: {out:?} {lse}"
                );
                continue;
            }
            assert!((sum - 1.0).abs() < 1e-9, "{what}: {row:?}: the oracle's weights sum up to {sum}");
            let score = most.max(self.sink(row[2]).map_or(0.0, f64::abs));
            let magnitudes = Magnitudes { num_keys, score, value, largest_value };
            let (bound_out, bound_lse) = bound(&magnitudes, shape.head_dim, exp);
            for d in 0..out.len() {
                let (error, allowed) = ((f64::from(out[d]) - expected[d]).abs(), bound_out[d]);
                // Not `error > allowed`, which a NaN would pass.
                assert!(
                    error <= allowed,
                    "{what}: {row:?} d {d}: {} is {error:e} from {}, allowed {allowed:e}",
                    out[d],
                    expected[d]
                );
            }
            let error = (f64::from(lse) - expected_lse).abs();
            assert!(
                error <= bound_lse,
                "{what}: {row:?} lse {lse} is {error:e} from {expected_lse}, allowed {bound_lse:e}"
            );
        }
    }
}

/// One key whose value is NaN, hidden from all queries but the last.
pub fn hidden_nan<T: Element>() -> ModifiedCase<T> {
    let [queries, keys] = [40, 24];
    let mut case = Case::<T>::random(super::shape(1, [queries, keys], [1, 1]), wattn::Mask::Full, 2);
    case.v.data_mut()[3 * 16] = T::from_f32(f32::NAN);
    let mut case = ModifiedCase::new(case, "alibi");
    let number = |at: usize| {
        let is_hidden = at % keys as usize == 3 && at / keys as usize + 1 < queries as usize;
        if is_hidden { f32::NEG_INFINITY } else { 0.0 }
    };
    let bias = Bias::new("hide", [1, 1, queries, keys], DType::F32);
    case.tensors.push((bias.name(), Tensor::F32(super::fill(bias.shape(), number))));
    case.add(bias);
    case
}

/// Asserts that the result of [`hidden_nan`] has one NaN: in the row that sees the key, in its value's column.
pub fn check_hidden_nan(got: &AttentionOutput, what: &str) {
    let last = got.out.data().len() / 16 - 1;
    for (at, x) in got.out.data().iter().enumerate() {
        assert_eq!(x.is_nan(), at == last * 16, "{what}: query {} column {}", at / 16, at % 16);
    }
    assert!(got.lse.data().iter().all(|lse| lse.is_finite()), "{what}");
}

/// Runs a case with a tier and a tiling: against the oracle and against the twins.
pub fn check_on<T: Element>(ctx: &Context, case: &ModifiedCase<T>, tier: Tier, tiling: Tiling) {
    let mut problem = case.problem().with_lse().with_out_dtype(DType::F32);
    if case.case.seq_lens_kv.is_some() {
        problem = problem.with_seq_lens_kv();
    }
    if tier.matrix() && T::DTYPE == DType::BF16 {
        problem = problem.with_bf16_by_f16_matrices();
    }
    let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), tier, tiling).unwrap();
    let what = format!("{} {tier} {tiling:?} {case:?}", ctx.describe());
    let got = case.with_inputs(|inputs| ctx.attend_planned(&plan, inputs).wait()).unwrap();
    case.check(&got, Exp::of(&plan), &what);
    let (out, lse) = case.with_inputs(|inputs| {
        if tiling.num_splits == 1 {
            let twin = twins::attend_prefill(&plan, inputs).unwrap();
            return (twin.out.into_data(), twin.lse.into_data());
        }
        let partials = twins::attend_decode(&plan, inputs).unwrap();
        let shape = &case.case.shape;
        let num_rows = shape.batch_size * shape.seq_len_q * shape.num_q_heads;
        let merge = MergeProblem { num_parts: tiling.num_splits, num_rows, head_dim_v: shape.head_dim_v };
        let (mut out, lse) = twins::merge_splits(&merge, &partials.out, &partials.lse).unwrap();
        for (row, out) in out.chunks_mut(shape.head_dim_v as usize).enumerate() {
            let sink = case.sink(row as u32 % shape.num_q_heads);
            let total = sink.map_or(1.0, |sink| 1.0 + (sink - f64::from(lse[row])).exp());
            out.iter_mut().for_each(|x| *x = (f64::from(*x) / total) as f32);
        }
        (out, lse)
    });
    check_twin(tier, (got.out.data(), got.lse.data()), (&out, &lse), &what);
}
