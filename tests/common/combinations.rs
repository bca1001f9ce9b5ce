//! All options of attention, pairwise: each two choices occur together in some call, and each way to break a rule is refused by name.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use half::{bf16, f16};
use wattn::cpu::{oracle, twins};
use wattn::{
    AttentionOutput, AttentionPlan, AttentionProblem, AttentionShape, BlockListSpec, DType, DeviceCaps, DispatchBudget,
    Element, Error, Granularity, HostInputs, HostTensor, Mask, MergeProblem, Result, Sharing, Tier, Tiling,
};

use super::covering::{Broken, Factors, Rule};
use super::gpu::{columns_tilings, segment_tiling, staged_tilings, tiny_tiling};
use super::selected::SelectedCase;
use super::{Case, Exp, shape};

// Factors, each at its place in a combination.
const TIER: usize = 0;
const DTYPE: usize = 1;
const OUT_DTYPE: usize = 2;
const MASK: usize = 3;
const LSE: usize = 4;
const SEQ_LENS: usize = 5;
const LISTS: usize = 6;
const BLOCKS: usize = 7;
const SPLITS: usize = 8;
const BUDGET: usize = 9;
const SHARING: usize = 10;
const GROUP: usize = 11;
const WIDTHS: usize = 12;
const LENGTHS: usize = 13;
const ALIGNED: usize = 14;
const BY_F16: usize = 15;

const MASKS: [Mask; 4] =
    [Mask::Full, Mask::Causal, Mask::Window { left: Some(4), right: Some(3) }, Mask::CausalAt { first: 9 }];
const GRANULARITIES: [Option<Granularity>; 4] =
    [None, Some(Granularity::QueryHead), Some(Granularity::KvHead), Some(Granularity::Layer)];
/// Sizes of query blocks and blocks, sinks, window, dense beginning.
const BLOCK_SIZES: [[u32; 5]; 3] = [[5, 8, 3, 6, 0], [4, 3, 0, 0, 0], [16, 16, 2, 9, 20]];
const NUM_SPLITS: [u32; 2] = [1, 3];
/// Nothing is cut; every tile is a dispatch of its own; every tile of some workgroups is.
const BUDGETS: [DispatchBudget; 3] =
    [DispatchBudget::UNLIMITED, DispatchBudget::new(1, 1), DispatchBudget::new(60_000, 1)];
/// How lanes and groups share, and their sizes.
const SHARINGS: [&str; 5] = ["keys", "keys of a segment", "columns", "tiles", "rows"];
const GROUPS: [u32; 2] = [1, 3];
/// Unequal widths; below a matrix, between two matrices, no multiple of 8; with one column a lane and several.
const HEAD_DIMS: [[u32; 2]; 2] = [[8, 16], [12, 20]];
/// `[seq_len_q, seq_len_kv]`: one row, tiles of both, more queries than keys, no keys.
const SIZES: [[u32; 2]; 4] = [[1, 37], [13, 70], [21, 5], [3, 0]];

const LEVELS: [usize; 16] = [
    Tier::ALL.len(),
    DType::ALL.len(),
    DType::ALL.len(),
    MASKS.len(),
    2,
    2,
    GRANULARITIES.len(),
    BLOCK_SIZES.len(),
    NUM_SPLITS.len(),
    BUDGETS.len(),
    SHARINGS.len(),
    GROUPS.len(),
    HEAD_DIMS.len(),
    SIZES.len(),
    2,
    2,
];

/// The point at which a combination is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// By the problem, on every path.
    Problem,
    /// By the plan.
    Plan,
    /// When tensors are bound.
    Bind,
}

/// One level of every factor.
#[derive(Clone, Debug)]
pub struct Combination {
    pub problem: AttentionProblem,
    pub tier: Tier,
    pub tiling: Tiling,
    pub budget: DispatchBudget,
    /// The random inputs.
    pub seed: u64,
}

/// The name in the error of a refused combination, and the place of the refusal.
pub struct Refused {
    pub combination: Combination,
    pub stage: Stage,
    pub name: String,
}

/// The rules of a device: combinations that it refuses, and the name of each refusal.
fn rules(caps: &DeviceCaps) -> Vec<(Stage, String, Rule<'_>)> {
    let matrix = |tier: usize| Tier::ALL[tier].matrix();
    let bf16 = |dtype: usize| DType::ALL[dtype] == DType::BF16;
    let listed = |lists: usize| GRANULARITIES[lists].is_some();
    let near = |blocks: usize| BLOCK_SIZES[blocks][2] + BLOCK_SIZES[blocks][3] > 0;
    let mut rules: Vec<(Stage, String, Rule<'_>)> = Vec::new();
    let mut rule = |stage, name: &str, factors, broken: Broken<'static>| {
        rules.push((stage, name.to_owned(), Rule { factors, broken }));
    };
    for (level, tier) in Tier::ALL.into_iter().enumerate() {
        if let Err(error) = caps.require(tier) {
            rule(Stage::Plan, &error.to_string(), &[TIER], Box::new(move |at| at[0] == level));
        }
    }
    let takes_f16 = move |at: &[usize]| DType::ALL[at[1]] == DType::F16 || bf16(at[1]) && at[2] == 1;
    rule(Stage::Plan, "tier", &[TIER, DTYPE, BY_F16], Box::new(move |at| matrix(at[0]) && !takes_f16(at)));
    rule(Stage::Plan, "sharing", &[TIER, SHARING], Box::new(move |at| matrix(at[0]) != (SHARINGS[at[1]] == "rows")));
    rule(Stage::Problem, "bf16_by_f16_matrices", &[DTYPE, BY_F16], Box::new(move |at| !bf16(at[0]) && at[1] == 1));
    rule(Stage::Problem, "bf16_by_f16_matrices", &[LISTS, BY_F16], Box::new(move |at| listed(at[0]) && at[1] == 1));
    let causal_at = |mask: usize| matches!(MASKS[mask], Mask::CausalAt { .. });
    rule(Stage::Problem, "seq_lens_kv", &[MASK, SEQ_LENS], Box::new(move |at| causal_at(at[0]) && at[1] == 1));
    let for_lists = |mask: usize| matches!(MASKS[mask], Mask::Full | Mask::Causal);
    rule(Stage::Problem, "mask", &[MASK, LISTS], Box::new(move |at| !for_lists(at[0]) && listed(at[1])));
    let full = |mask: usize| MASKS[mask] == Mask::Full;
    let near_full = move |at: &[usize]| full(at[0]) && listed(at[1]) && near(at[2]);
    rule(Stage::Problem, "sink_size", &[MASK, LISTS, BLOCKS], Box::new(near_full));
    let unaligned = |at: &[usize]| {
        let wide = HEAD_DIMS[at[1]].iter().any(|width| width % 8 != 0);
        DType::ALL[at[0]] != DType::F32 && wide && at[2] == 1
    };
    rule(Stage::Bind, "aligned rows", &[DTYPE, WIDTHS, ALIGNED], Box::new(unaligned));
    rules
}

/// For a device: the combinations that it takes, with every allowed pair of choices, and combinations that it refuses, each for one reason.
pub fn combinations(caps: &DeviceCaps) -> (Vec<Combination>, Vec<Refused>) {
    let mut stages = Vec::new();
    let of = |(stage, name, rule)| {
        stages.push((stage, name));
        rule
    };
    let rules: Vec<Rule<'_>> = rules(caps).into_iter().map(of).collect();
    let factors = Factors { levels: &LEVELS, rules: &rules };
    let taken = factors.covering().iter().zip(1..).map(|(row, seed)| Combination::new(row, caps, seed)).collect();
    let refused = stages.into_iter().enumerate().flat_map(|(at, (stage, name))| {
        let of = |row: &Vec<usize>| Refused { combination: Combination::new(row, caps, 1), stage, name: name.clone() };
        factors.breaking(at).iter().map(of).collect::<Vec<_>>()
    });
    (taken, refused.collect())
}

impl Combination {
    fn new(row: &[usize], caps: &DeviceCaps, seed: u64) -> Self {
        let [head_dim, head_dim_v] = HEAD_DIMS[row[WIDTHS]];
        let shape = AttentionShape { head_dim, head_dim_v, ..shape(2, SIZES[row[LENGTHS]], [2, GROUPS[row[GROUP]]]) };
        let mut problem = AttentionProblem::new(shape, DType::ALL[row[DTYPE]])
            .with_mask(MASKS[row[MASK]])
            .with_out_dtype(DType::ALL[row[OUT_DTYPE]]);
        if row[LSE] == 1 {
            problem = problem.with_lse();
        }
        if row[SEQ_LENS] == 1 {
            problem = problem.with_seq_lens_kv();
        }
        if let Some(granularity) = GRANULARITIES[row[LISTS]] {
            problem = problem.with_blocks(block_selection(granularity, BLOCK_SIZES[row[BLOCKS]]));
        }
        if row[ALIGNED] == 1 {
            problem = problem.with_aligned_rows();
        }
        if row[BY_F16] == 1 {
            problem = problem.with_bf16_by_f16_matrices();
        }
        let tier = Tier::ALL[row[TIER]];
        let tiling = tiling(caps, tier, SHARINGS[row[SHARING]]).with_num_splits(NUM_SPLITS[row[SPLITS]]);
        Self { problem, tier, tiling, budget: BUDGETS[row[BUDGET]], seed }
    }

    /// The plan of a problem where nothing is cut.
    pub fn of(problem: AttentionProblem, tier: Tier, tiling: Tiling) -> Self {
        Self { problem, tier, tiling, budget: DispatchBudget::UNLIMITED, seed: 1 }
    }

    /// The plan of a problem for a device that may cut at its budget.
    pub fn plan(&self, caps: &DeviceCaps) -> Result<AttentionPlan> {
        let mut caps = caps.clone();
        caps.budget = self.budget;
        AttentionPlan::with_tiling(&self.problem, &caps, self.tier, self.tiling)
    }

    /// Inputs with the arguments that the problem asks for.
    pub fn case<T: Element>(&self) -> SelectedCase<T> {
        let shape = *self.problem.shape();
        let mut case = Case::random(shape, self.problem.mask(), self.seed);
        if self.problem.seq_lens_kv() {
            case.seq_lens_kv = Some(vec![shape.seq_len_kv, shape.seq_len_kv / 3]);
        }
        // Dense attention has no lists.
        let selection = self.problem.blocks().copied();
        let selection = selection.unwrap_or_else(|| block_selection(Granularity::Layer, BLOCK_SIZES[0]));
        SelectedCase::random(format!("{self:?}"), case, selection, self.seed)
    }

    /// The options of a case's problem.
    pub fn inputs<'a, T: Element>(&self, case: &'a SelectedCase<T>) -> HostInputs<'a, T> {
        let inputs = case.case.inputs();
        if self.is_sparse() { inputs.with_blocks(&case.blocks) } else { inputs }
    }

    /// The problem without the options that only devices take.
    fn oracle_problem<T: Element>(&self, case: &SelectedCase<T>) -> AttentionProblem {
        if self.is_sparse() { case.problem() } else { case.case.problem() }
    }

    pub fn is_sparse(&self) -> bool {
        self.problem.blocks().is_some()
    }

    /// Asserts that a result equals the oracle's, within the bound of `exp` and the rounding of `out_dtype`.
    pub fn check<T: Element>(
        &self,
        case: &SelectedCase<T>,
        got: &AttentionOutput,
        (exp, out_dtype): (Exp, DType),
        what: &str,
    ) {
        let right = oracle::attend(&self.oracle_problem(case), &self.inputs(case));
        let got = AttentionOutput::new(unrounded(&got.out, &right.unwrap().out, out_dtype), got.lse.clone());
        match self.is_sparse() {
            true => case.check(&got, exp),
            false => drop(case.case.check_with(&got, exp, what)),
        }
    }

    /// The results of the twins of the plan's kernels.
    pub fn run_twins<T: Element>(&self, plan: &AttentionPlan, case: &SelectedCase<T>) -> AttentionOutput {
        let inputs = self.inputs(case);
        let (shape, num_parts) = (self.problem.shape(), plan.tiling().num_splits);
        if num_parts == 1 {
            return twins::attend_prefill(plan, &inputs).unwrap();
        }
        let partials = twins::attend_decode(plan, &inputs).unwrap();
        let num_rows = shape.batch_size * shape.seq_len_q * shape.num_q_heads;
        let problem = MergeProblem { num_parts, num_rows, head_dim_v: shape.head_dim_v };
        let (out, lse) = twins::merge_splits(&problem, &partials.out, &partials.lse).unwrap();
        let tensor = |shape, data| HostTensor::new(shape, data).unwrap();
        AttentionOutput::new(tensor(shape.out(), out), tensor(shape.lse(), lse))
    }

    /// Calls the method for the element type of q, k and v.
    pub fn visit(&self, visitor: &mut impl Visitor) {
        match self.problem.dtype() {
            DType::F32 => visitor.visit::<f32>(self),
            DType::F16 => visitor.visit::<f16>(self),
            DType::BF16 => visitor.visit::<bf16>(self),
            dtype => panic!("{dtype} is new"),
        }
    }
}

/// An action on a combination.
pub trait Visitor {
    fn visit<T: Element>(&mut self, combination: &Combination);
}

fn block_selection(granularity: Granularity, sizes: [u32; 5]) -> BlockListSpec {
    let [block_size_q, block_size, sink_size, window_size, dense_below] = sizes;
    BlockListSpec::new(block_size_q, block_size, 4)
        .with_granularity(granularity)
        .with_sink_size(sink_size)
        .with_window_size(window_size)
        .with_dense_below(dense_below)
}

/// A tiny tiling of a tier with this sharing, if it has one.
fn tiling(caps: &DeviceCaps, tier: Tier, sharing: &str) -> Tiling {
    // Plans of tiers with matrices refuse the sharings of tiers without, and the reverse.
    let tiny = tiny_tiling(caps, tier, 1);
    match (tier.matrix(), sharing) {
        (true, "rows") => tiny,
        (true, "columns") => tiny.with_sharing(Sharing::Columns),
        (true, "tiles") => tiny.with_sharing(Sharing::Tiles),
        (true, _) => tiny.with_sharing(Sharing::Keys),
        (false, "keys of a segment") => segment_tiling(caps, tier).unwrap_or(tiny.with_rows(4)),
        (false, "columns") => columns_tilings(caps, tier)[0],
        (false, "tiles") => staged_tilings(caps, tier)[0],
        (false, "rows") => tiny.with_sharing(Sharing::Rows),
        (false, _) => tiny,
    }
}

/// Among all numbers that round to those of a tensor, the nearest to the exact ones. So a result that was rounded when stored is held to
/// the bounds of the computation.
pub fn unrounded(got: &HostTensor, right: &HostTensor, dtype: DType) -> HostTensor {
    let half_ulp = |x: f32| match dtype {
        DType::F32 => 0.0,
        DType::F16 => (x.abs() * 2f32.powi(-11)).max(2f32.powi(-25)),
        DType::BF16 => x.abs() * 2f32.powi(-8),
        dtype => panic!("{dtype} is new"),
    };
    let near = |(&x, &right): (&f32, &f32)| right.clamp(x - half_ulp(x), x + half_ulp(x));
    let data = got.data().iter().zip(right.data()).map(near).collect();
    HostTensor::new(got.shape(), data).unwrap()
}

/// Asserts that a refusal is an error that names its cause.
pub fn check_refusal(error: &Error, name: &str, what: &str) {
    let text = error.to_string();
    let typed = !matches!(error, Error::Validation { .. } | Error::OutOfMemory { .. } | Error::DeviceLost { .. });
    assert!(typed && text.contains(name), "{what}: `{text}` does not name `{name}`");
}
