//! Every variant of the kernels of attention and selection: what plans produce for devices of many kinds.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

#[path = "covering.rs"]
#[allow(clippy::duplicate_mod, reason = "a test may take this file with and without the common ones")]
mod covering;

use std::collections::HashSet;

use covering::{Factors, Rule};

use wattn::{
    Alibi, AttentionPlan, AttentionProblem, AttentionShape, Bias, BlockScorePlan, BlockScoreProblem, BlockScoring,
    Candidates, DType, DeviceCaps, DispatchBudget, Error, Granularity, HeadReduction, Hip, InfiniteHip, Mask,
    MatrixTile, MergePlan, MergeProblem, PoolPlan, PoolProblem, Pooling, Preset, Reduction, Representative, ScoreMod,
    SelectionPlan, SelectionProblem, Sinks, Softcap, Specialization, Tier, Tiling, TopKPlan, TopKProblem, kernels,
};

/// The subgroups of devices: none, one size (software, most NVIDIA), a range (Intel, AMD, phones).
fn devices() -> Vec<DeviceCaps> {
    let mut devices = Vec::new();
    for subgroup_size in [None, Some(4..=4), Some(8..=8), Some(32..=32), Some(64..=64), Some(8..=32), Some(4..=128)] {
        // The smaller device comes first, so that it is kept where two have the same text.
        for (software, shader_int64) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut caps = DeviceCaps::BASELINE;
            caps.shader_f16 = true;
            caps.subgroup_size = subgroup_size.clone();
            (caps.software, caps.shader_int64) = (software, shader_int64);
            devices.push(caps);
        }
    }
    devices
}

/// Devices that multiply matrices: both edges, subgroups as wide as matrices and wider, arrays of the types that matrices load from.
fn matrix_devices() -> Vec<DeviceCaps> {
    let mut devices = Vec::new();
    for (edge, lanes) in [(8, 8), (8, 32), (16, 32), (16, 64)] {
        for (matrix_from_vec4, software) in [(true, false), (false, true)] {
            let mut caps = DeviceCaps::BASELINE;
            caps.shader_f16 = true;
            caps.subgroup_size = Some(lanes..=lanes);
            caps.matrix_tiles = vec![MatrixTile::square(edge)];
            caps.max_workgroup_storage_bytes = 48 << 10;
            (caps.matrix_from_vec4, caps.software) = (matrix_from_vec4, software);
            devices.push(caps);
        }
    }
    devices
}

/// Every device with each of its tiers; devices with matrices in that tier only.
pub fn devices_and_tiers() -> Vec<(DeviceCaps, Tier)> {
    let mut pairs = Vec::new();
    for caps in devices() {
        pairs.extend(Tier::ALL.into_iter().filter(|&tier| caps.require(tier).is_ok()).map(|tier| (caps.clone(), tier)));
    }
    pairs.extend(matrix_devices().into_iter().map(|caps| (caps, Tier::Matrix)));
    pairs
}

/// One row, a few, and many, with one query head for a KV head or several: all row counts that tilings distinguish.
fn shapes([head_dim, head_dim_v]: [u32; 2]) -> [AttentionShape; 3] {
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 1,
        seq_len_kv: 4096,
        num_q_heads: 2,
        num_kv_heads: 2,
        head_dim,
        head_dim_v,
    };
    [shape, AttentionShape { num_q_heads: 8, ..shape }, AttentionShape { seq_len_q: 1000, num_kv_heads: 1, ..shape }]
}

/// Widths that fill no lane, some and all; unequal widths.
const WIDTHS: [[u32; 2]; 6] = [[4, 4], [20, 36], [64, 64], [128, 128], [256, 256], [4, 252]];

/// The same device, with walks cut at every tile.
fn cut(caps: &DeviceCaps) -> DeviceCaps {
    let mut caps = caps.clone();
    caps.budget = DispatchBudget::new(1, 1);
    // Prefill over lists with lengths and lse is cut only where there is a buffer to spare.
    caps.max_storage_buffers = 9;
    caps
}

pub struct Variant {
    pub specialization: Specialization,
    /// The first device and tier with this text.
    pub caps: DeviceCaps,
    pub tier: Tier,
    /// Variants of the kernels of attention.
    pub tiling: Option<Tiling>,
    /// Bytes of workgroup memory that the plan promises to stay within; `None` where the kernel has none.
    pub storage: Option<u64>,
}

/// Variants, each once.
#[derive(Default)]
struct Found {
    seen: HashSet<Specialization>,
    variants: Vec<Variant>,
}

impl Found {
    fn add(
        &mut self,
        specialization: &Specialization,
        (caps, tier): &(DeviceCaps, Tier),
        tiling: Option<Tiling>,
        storage: Option<u64>,
    ) {
        if self.seen.insert(specialization.clone()) {
            let (specialization, caps, tier) = (specialization.clone(), caps.clone(), *tier);
            self.variants.push(Variant { specialization, caps, tier, tiling, storage });
        }
    }

    /// The dispatches of attention; the merge among them has neither a tiling nor workgroup memory.
    fn add_attention(&mut self, plan: &AttentionPlan, most: usize, device: &(DeviceCaps, Tier)) {
        for dispatch in plan.dispatches().iter().take(most) {
            let specialization = &dispatch.specialization;
            if dispatch.kernel() == &kernels::FIND_EXPONENTS {
                self.add(specialization, device, None, Some(16));
            } else if dispatch.kernel() == &kernels::MERGE_SPLITS {
                // Four columns, a maximum and a sum of each invocation, where several share a row's parts.
                let shared = specialization.modules().any(|module| module.name() == "join_lanes");
                let size = u64::from(specialization.constant("WORKGROUP_SIZE").unwrap());
                self.add(specialization, device, None, shared.then_some(size * 24));
            } else {
                self.add(specialization, device, Some(plan.tiling()), Some(plan.workgroup_storage_bytes()));
            }
        }
    }
}

/// The variants of plans for every option that selects a module or a constant, pairwise on every device.
pub fn variants() -> Vec<Variant> {
    variants_of(&devices_and_tiers())
}

/// [`variants`] of these devices and tiers.
pub fn variants_of(devices: &[(DeviceCaps, Tier)]) -> Vec<Variant> {
    let mut found = Found::default();
    for device in devices {
        let matrices = device.1.matrix();
        let no_f32 = Rule { factors: &[2], broken: Box::new(|at| matrices && DType::ALL[at[0]] == DType::F32) };
        let levels = &[WIDTHS.len(), 3, DType::ALL.len(), DType::ALL.len(), 2, 2, 2];
        for row in (Factors { levels, rules: &[no_f32] }).covering() {
            dense_variant(device, &row, &mut found);
        }
    }
    for device in devices {
        folded_variants(device, &mut found);
        aligned_variants(device, &mut found);
        modified_variants(device, &mut found);
        selected_variants(device, &mut found);
        block_op_variants(device, &mut found);
    }
    let baseline = (DeviceCaps::BASELINE, Tier::Baseline);
    for seq_lens_kv in [false, true] {
        let blocks = SelectionProblem::new(shapes([20, 36])[0], DType::F32, Hip::default()).blocks();
        let dispatches = wattn::check_dispatches(&blocks, &shapes([20, 36])[0], seq_lens_kv, &baseline.0);
        for dispatch in dispatches.unwrap() {
            found.add(&dispatch.specialization, &baseline, None, None);
        }
    }
    let merge = MergeProblem { num_parts: 3, num_rows: 7, head_dim_v: 68 };
    let plan = MergePlan::new(&merge, &baseline.0).unwrap();
    found.add(&plan.dispatch().specialization, &baseline, None, None);
    found.variants
}

/// Rows that begin at multiples of 16 bytes.
fn aligned_variants(device: &(DeviceCaps, Tier), found: &mut Found) {
    let (caps, tier) = device;
    for dtype in [DType::F16, DType::BF16].into_iter().filter(|dtype| *dtype == DType::F16 || !tier.matrix()) {
        for shape in &shapes([64, 128])[..2] {
            let problem = AttentionProblem::new(*shape, dtype).with_lse().with_aligned_rows();
            if let Ok(plan) = AttentionPlan::with_tier(&problem, caps, *tier) {
                found.add_attention(&plan, 1, device);
            }
        }
    }
}

/// Every modifier, alone and in a chain, over a range of keys and over lists.
fn modified_variants(device: &(DeviceCaps, Tier), found: &mut Found) {
    let (caps, tier) = device;
    let dtype = if tier.matrix() { DType::F16 } else { DType::F32 };
    for shape in shapes([20, 36]) {
        let bias = |dtype| Bias::new("bias", [1, 1, 1, shape.seq_len_kv], dtype).into();
        let chains: [Vec<ScoreMod>; 4] = [
            vec![Softcap::new(30.0).into()],
            vec![Alibi::published().into(), bias(DType::F16)],
            vec![bias(DType::BF16), Softcap::new(30.0).into(), Softcap::new(5.0).into()],
            vec![bias(DType::F32)],
        ];
        for (at, chain) in chains.into_iter().enumerate() {
            let mut problem = AttentionProblem::new(shape, dtype).with_mask(Mask::Causal);
            if at == 3 {
                let selection = SelectionProblem::new(shape, dtype, Hip::default()).with_mask(Mask::Causal);
                problem = problem.with_blocks(selection.blocks());
            }
            let mut problem = chain.into_iter().fold(problem, AttentionProblem::with_score_mod);
            if at > 1 {
                problem = problem.with_sinks(if at == 2 { Sinks::Zero } else { Sinks::Learned(DType::BF16) });
            }
            let plan = AttentionPlan::with_tier(&problem, caps, *tier).unwrap();
            found.add_attention(&plan, 1, device);
        }
    }
}

/// Walks so long that the sums of matrices are folded, in one part and in several.
fn folded_variants(device: &(DeviceCaps, Tier), found: &mut Found) {
    let (caps, tier) = device;
    if tier.matrix() {
        let shape = AttentionShape { seq_len_q: 64, seq_len_kv: 20000, ..shapes([64, 64])[0] };
        let bf16 = AttentionProblem::new(shape, DType::BF16).with_bf16_by_f16_matrices();
        for problem in [AttentionProblem::new(shape, DType::F16).with_lse(), bf16.with_lse()] {
            let tiling = AttentionPlan::with_tier(&problem, caps, *tier).unwrap().tiling().with_num_splits(1);
            for caps in [caps.clone(), cut(caps)] {
                let plan = AttentionPlan::with_tiling(&problem, &caps, *tier, tiling).unwrap();
                found.add_attention(&plan, usize::MAX, device);
            }
        }
    }
}

/// Dense attention for a row of widths, shape and types, with and without lse and key lengths, in one part or in several.
fn dense_variant(device: &(DeviceCaps, Tier), row: &[usize], found: &mut Found) {
    let (caps, tier) = device;
    let mut problem = AttentionProblem::new(shapes(WIDTHS[row[0]])[row[1]], DType::ALL[row[2]]);
    problem = problem.with_out_dtype(DType::ALL[row[3]]);
    if row[4] == 1 {
        problem = problem.with_lse();
    }
    if row[5] == 1 {
        problem = problem.with_seq_lens_kv();
    }
    if tier.matrix() && problem.dtype() == DType::BF16 {
        problem = problem.with_bf16_by_f16_matrices();
    }
    let caps = if row[6] == 1 { cut(caps) } else { caps.clone() };
    match AttentionPlan::with_tier(&problem, &caps, *tier) {
        Ok(plan) => found.add_attention(&plan, usize::MAX, device),
        // A tile has as many keys as a subgroup has lanes.
        Err(Error::Limit { .. }) if tier.matrix() && problem.shape().head_dim_v > 128 => {}
        Err(error) => panic!("{error}"),
    }
}

/// Selection and block-sparse attention, for every option that selects a module or a constant there.
fn selected_variants(device: &(DeviceCaps, Tier), found: &mut Found) {
    let (caps, tier) = device;
    for shape in shapes([20, 36]) {
        for (index, dtype) in DType::ALL.into_iter().enumerate() {
            if tier.matrix() && dtype != DType::F16 {
                continue;
            }
            for problem in selections(shape, dtype, index) {
                let plan = SelectionPlan::with_tier(&problem, caps, *tier).unwrap();
                for dispatch in plan.dispatches() {
                    found.add(&dispatch.specialization, device, None, Some(plan.workgroup_storage_bytes()));
                }
                let mut attention =
                    AttentionProblem::new(shape, dtype).with_mask(problem.mask()).with_blocks(problem.blocks());
                if index > 0 {
                    attention = attention.with_lse().with_seq_lens_kv();
                }
                let plan = AttentionPlan::with_tier(&attention, caps, *tier).unwrap();
                found.add_attention(&plan, usize::MAX, device);
                let cut = AttentionPlan::with_tier(&attention, &cut(caps), *tier).unwrap();
                found.add_attention(&cut, index % 2, device);
            }
        }
    }
}

/// Summaries and scores of blocks, and a top-k, for every option that selects a module or a constant there.
fn block_op_variants(device: &(DeviceCaps, Tier), found: &mut Found) {
    let (caps, tier) = device;
    if tier.matrix() {
        return;
    }
    for (index, shape) in shapes([20, 36]).into_iter().chain(shapes([256, 4])).enumerate() {
        for dtype in DType::ALL {
            for pooling in Pooling::ALL {
                let problem = PoolProblem::new(shape.k(), dtype, 16, pooling);
                let problem = if index % 2 == 0 { problem } else { problem.with_seq_lens() };
                let plan = PoolPlan::with_tier(&problem, caps, *tier).unwrap();
                found.add(&plan.dispatch().specialization, device, None, None);
            }
            for (scoring, reduction) in [
                (BlockScoring::Dot, Reduction::Mean),
                (BlockScoring::Bound, Reduction::Max),
                (BlockScoring::Dot, Reduction::Sum),
            ] {
                let problem = BlockScoreProblem::new(shape, dtype, 16, scoring);
                let problem = problem.with_query_blocks(64, reduction).with_granularity(Granularity::Layer);
                let problem = problem.with_head_reduction(if index == 2 { Reduction::Max } else { reduction });
                let problem = if index % 2 == 0 { problem } else { problem.with_seq_lens_kv().with_mask(Mask::Full) };
                let plan = BlockScorePlan::with_tier(&problem, caps, *tier).unwrap();
                let specialization = &plan.dispatch().specialization;
                let constant = |name| u64::from(specialization.constant(name).unwrap());
                // Sums over lanes, where no shuffle adds them up.
                let bytes = 4 * constant("GROUPS") * (constant("REDUCE_STRIDE") + 1) + 32;
                found.add(specialization, device, None, (!tier.subgroup()).then_some(bytes));
            }
        }
    }
    for (n, candidates) in [(2000, Candidates::Workgroup), (2000, Candidates::Scratch), (5000, Candidates::Workgroup)] {
        let problem = TopKProblem::new([1, 2, 3, n], 7);
        for problem in [problem, problem.with_forced_last(1), problem.with_marks()] {
            let plan = TopKPlan::with_candidates(&problem, caps, candidates).unwrap();
            found.add(&plan.dispatch().specialization, device, None, Some(16 << 10));
        }
    }
}

/// Selections that compile to different shaders.
fn selections(shape: AttentionShape, dtype: DType, index: usize) -> Vec<SelectionProblem> {
    let hip = Hip::default();
    let full = hip.with_sink_size(0).with_window_size(0);
    let union = InfiniteHip::from(Preset::Debug).with_reduction(HeadReduction::Union);
    let first = InfiniteHip::from(Preset::FiveK).with_representative(Representative::First);
    let mut problems = vec![
        SelectionProblem::new(shape, dtype, hip),
        SelectionProblem::new(shape, dtype, Hip::decode()).with_granularity(Granularity::KvHead),
        SelectionProblem::new(shape, dtype, full).with_mask(Mask::Full),
        SelectionProblem::new(shape, dtype, Preset::ThreeK),
        SelectionProblem::new(shape, dtype, first).with_granularity(Granularity::QueryHead),
        SelectionProblem::new(shape, dtype, union),
        SelectionProblem::new(shape, dtype, Preset::SixteenKShallow),
    ];
    if index > 0 {
        problems = problems.into_iter().map(SelectionProblem::with_seq_lens_kv).collect();
    }
    problems
}

/// Every kernel that measures a ceiling.
#[cfg(feature = "bench")]
pub fn bench_kernels() -> Vec<wattn::bench::BenchKernel> {
    use wattn::bench::{BenchKernel, Scalar};
    let matrices = |edge, subgroup_size| BenchKernel::MultiplyMatrices { edge, subgroup_size };
    vec![
        BenchKernel::CopyWords,
        BenchKernel::MultiplyAdd(Scalar::F32),
        BenchKernel::MultiplyAdd(Scalar::F16),
        matrices(16, 32),
        matrices(8, 32),
    ]
}
