//! Attention: every module of its kernels, with inputs that reach every barrier.

use core::ops::Range;

use half::{bf16, f16};
use wattn::cpu::twins;
use wattn::{
    Attention, AttentionOutput, AttentionPlan, AttentionProblem, AttentionShape, BlockListSpec, DType, DeviceCaps,
    DispatchBudget, Element, Granularity, HostBlockLists, HostTensor, Mask, MatrixTile, Sharing, Tier, Tiling,
};

use super::common::gpu::{check_twin, run_twins};
use super::common::selected::{SELECTION, SelectedCase};
use super::common::{self, Exp};
use super::launch::{Buffers, Case, Launch, from_bytes, garbage, to_bytes};

/// The device, tiling and options of a case.
pub(super) struct Device {
    caps: DeviceCaps,
    pub(super) tier: Tier,
    pub(super) tiling: Tiling,
    subgroup_size: usize,
    /// Whether rows are promised to begin at multiples of 16 bytes.
    aligned: bool,
}

const TINY: Tiling = Tiling::new(4, 2, 4, 2);

impl Device {
    pub(super) fn new(tier: Tier, subgroup_size: Option<core::ops::RangeInclusive<u32>>, tiling: Tiling) -> Self {
        let mut caps = DeviceCaps::BASELINE;
        caps.shader_f16 = tier.shader_f16();
        caps.max_workgroup_storage_bytes = 128 << 10;
        let size = subgroup_size.as_ref().map_or(4, |size| *size.end());
        caps.subgroup_size = subgroup_size;
        Self { caps, tier, tiling, subgroup_size: size as usize, aligned: false }
    }

    pub(super) fn baseline() -> Self {
        Self::new(Tier::Baseline, None, TINY)
    }

    /// A group is a subgroup.
    pub(super) fn subgroups(tier: Tier) -> Self {
        Self::new(tier, Some(4..=4), TINY.with_rows(4))
    }

    /// A group is a segment of a subgroup.
    pub(super) fn segments(tier: Tier) -> Self {
        Self::new(tier, Some(4..=8), TINY)
    }

    /// Lanes share the rows of keys; three groups have the same three query rows.
    pub(super) fn columns(tier: Tier, subgroup_size: Option<core::ops::RangeInclusive<u32>>) -> Self {
        let groups = subgroup_size.as_ref().map_or(3, |size| 3 * size.end() / 4);
        Self::new(
            tier,
            subgroup_size,
            TINY.with_rows(3).with_keys(2).with_groups(groups).with_sharing(Sharing::Columns),
        )
    }

    pub(super) fn matrices(edge: u32, lanes: u32, from_vec4: bool) -> Self {
        let keys = edge.max(4 * lanes / edge);
        let tiling = Tiling::new(lanes, edge, keys, 2).with_sharing(Sharing::Rows);
        let mut device = Self::new(Tier::Matrix, Some(lanes..=lanes), tiling);
        device.caps.matrix_tiles = vec![MatrixTile::square(edge)];
        (device.caps.shader_f16, device.caps.matrix_from_vec4) = (true, from_vec4);
        device
    }

    /// Shaders as software devices get them.
    pub(super) fn software(mut self) -> Self {
        (self.caps.software, self.caps.shader_int64) = (true, true);
        self
    }

    pub(super) fn tiled(mut self, change: impl FnOnce(&mut Tiling)) -> Self {
        change(&mut self.tiling);
        self
    }

    fn aligned(mut self) -> Self {
        self.aligned = true;
        self
    }

    /// With tiles that all groups share.
    pub(super) fn staged(self) -> Self {
        self.tiled(|tiling| tiling.sharing = Sharing::Tiles)
    }

    /// With a number of keys that lanes cannot halve among them.
    pub(super) fn three_keys(self) -> Self {
        self.tiled(|tiling| tiling.keys = 3)
    }

    /// With this much workgroup memory, enough for the results of one row at a time.
    fn narrow(mut self, bytes: u32) -> Self {
        self.caps.max_workgroup_storage_bytes = bytes;
        self
    }

    pub(super) fn splits(self, num_splits: u32) -> Self {
        self.tiled(|tiling| tiling.num_splits = num_splits)
    }

    /// With walks that are cut at every tile.
    pub(super) fn cut(mut self) -> Self {
        self.caps.budget = DispatchBudget::new(1, 1);
        self.caps.max_storage_buffers = 9; // for prefill over lists with lengths and lse
        self
    }

    pub(super) fn plan(&self, problem: &AttentionProblem) -> AttentionPlan {
        AttentionPlan::with_tiling(problem, &self.caps, self.tier, self.tiling).unwrap()
    }
}

/// A part of the workspace.
fn views(plan: &AttentionPlan) -> Vec<(&'static str, Range<usize>)> {
    let views = plan.workspace_views().into_iter().filter(|(_, range)| !range.is_empty());
    views.map(|(name, range)| (name, range.start as usize..range.end as usize)).collect()
}

/// The bindings of a plan's kernels, and their launches.
pub(super) fn parts<T: Element>(
    device: &Device,
    plan: &AttentionPlan,
    case: &common::Case<T>,
    blocks: Option<&HostBlockLists>,
) -> (Vec<Launch>, Buffers) {
    let launches = plan.dispatches().iter().enumerate().map(|(index, dispatch)| {
        let uniforms = Attention::uniforms(plan, index);
        let grids = dispatch.stretches.iter().map(|stretch| stretch.workgroups);
        Launch {
            name: dispatch.to_string(),
            rolled: dispatch.specialization.wgsl_rolled(),
            shipped: dispatch.specialization.wgsl(),
            taken: super::launch::taken(&dispatch.specialization),
            subgroup_size: device.subgroup_size,
            stretches: grids.zip(uniforms).collect(),
            bound: Vec::new(),
            views: views(plan),
        }
    });
    let shape = plan.problem().shape();
    let len = |shape: [u32; 4]| shape.iter().map(|&n| u64::from(n)).product::<u64>();
    let mut buffers: Vec<(&str, Vec<u8>)> = vec![
        ("q", to_bytes(case.q.data())),
        ("k", to_bytes(case.k.data())),
        ("v", to_bytes(case.v.data())),
        ("seq_lens_kv", case.seq_lens_kv.as_ref().map_or(garbage(4), |lens| to_bytes(lens))),
        ("out", garbage(len(shape.out()) * plan.problem().out_dtype().size_bytes())),
        ("lse", garbage(len(shape.lse()) * 4)),
        ("workspace", garbage(plan.workspace_bytes().max(16))),
    ];
    if let Some(blocks) = blocks {
        buffers.push(("block_indices", to_bytes(blocks.block_indices())));
        buffers.push(("block_counts", to_bytes(blocks.block_counts())));
    }
    (launches.collect(), buffers.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect())
}

/// `out` widened to f32, and lse.
pub(super) fn output(shape: &AttentionShape, dtype: DType, buffers: &Buffers) -> AttentionOutput {
    let out: Vec<f32> = match dtype {
        DType::F32 => from_bytes(&buffers["out"]),
        DType::F16 => from_bytes::<f16>(&buffers["out"]).into_iter().map(f16::to_f32).collect(),
        DType::BF16 => from_bytes::<bf16>(&buffers["out"]).into_iter().map(bf16::to_f32).collect(),
        other => panic!("out in {other}"),
    };
    let lse = from_bytes(&buffers["lse"]);
    AttentionOutput::new(HostTensor::new(shape.out(), out).unwrap(), HostTensor::new(shape.lse(), lse).unwrap())
}

/// Dense attention, against the oracle and the twins.
fn dense<T: Element>(device: Device, case: common::Case<T>, out_dtype: DType) -> Case {
    let problem = common::gpu::problem_of(&case, out_dtype);
    let by_matrices = device.tier.matrix() && T::DTYPE == DType::BF16;
    let problem = if by_matrices { problem.with_bf16_by_f16_matrices() } else { problem };
    let plan = device.plan(&if device.aligned { problem.with_aligned_rows() } else { problem });
    let (launches, buffers) = parts(&device, &plan, &case, None);
    let name = format!("{:?} {case:?} {out_dtype}", device.tiling);
    let what = name.clone();
    let check = move |buffers: &Buffers| {
        let got = output(&case.shape, out_dtype, buffers);
        let twin = run_twins(&plan, &case);
        let finite = case.v.data().iter().all(|v| v.to_f32().is_finite());
        if !finite {
            let is_right = |(got, twin): (&f32, &f32)| got.is_finite() == twin.is_finite();
            assert!(got.out.data().iter().zip(twin.out.data()).all(is_right), "{what}: what is finite");
            assert!(twin.out.data().iter().any(|x| x.is_finite()), "{what}: something is finite");
        } else if out_dtype == DType::F32 {
            case.check_with(&got, Exp::of(&plan), &what);
            // Twins are close where scores are small.
            if case.seed != STEEP {
                check_twin(plan.tier(), (got.out.data(), got.lse.data()), (twin.out.data(), twin.lse.data()), &what);
            }
        } else {
            let unit = if out_dtype == DType::F16 { 2f32.powi(-10) } else { 2f32.powi(-7) };
            for (got, twin) in got.out.data().iter().zip(twin.out.data()) {
                assert!((got - twin).abs() <= unit * twin.abs() + 1e-5, "{what}: {got} and {twin}");
            }
        }
    };
    Case { name, launches, buffers, check: Box::new(check) }
}

/// The seed of cases whose scores grow, so that sums move in many tiles.
const STEEP: u64 = 77;

/// Keys grow along the sequence, and with them the scores: each tile has a new maximum, beyond the slack of the reference.
fn steep<T: Element>(shape: AttentionShape) -> common::Case<T> {
    let mut case = common::Case::<T>::random(shape, Mask::Full, STEEP);
    let dim = shape.head_dim as usize;
    case.q.data_mut().iter_mut().for_each(|x| *x = T::from_f32(1.0));
    for (at, x) in case.k.data_mut().iter_mut().enumerate() {
        *x = T::from_f32((at / (dim * shape.num_kv_heads as usize)) as f32 * 0.5);
    }
    case
}

/// Attention to listed blocks, against the oracle.
fn selected<T: Element>(device: Device, case: common::Case<T>, selection: BlockListSpec) -> Case {
    let selected = SelectedCase::random("blocks", case, selection, 5);
    let problem = selected.problem().with_out_dtype(DType::F32).with_lse();
    let problem = if selected.case.seq_lens_kv.is_some() { problem.with_seq_lens_kv() } else { problem };
    let plan = device.plan(&problem);
    let (launches, buffers) = parts(&device, &plan, &selected.case, Some(&selected.blocks));
    let name = format!("{:?} {:?} {selection:?}", device.tiling, selected.case);
    let check = move |buffers: &Buffers| {
        let got = output(&selected.case.shape, DType::F32, buffers);
        selected.check(&got, Exp::of(&plan));
        if plan.tiling().num_splits == 1 {
            let twin = twins::attend_prefill(&plan, &selected.case.inputs().with_blocks(&selected.blocks)).unwrap();
            let (twin, got) = ((twin.out.data(), twin.lse.data()), (got.out.data(), got.lse.data()));
            check_twin(plan.tier(), got, twin, &selected.name);
        }
    };
    Case { name, launches, buffers, check: Box::new(check) }
}

/// Two sequences, two KV heads of two query heads.
pub(super) fn shape(lens: [u32; 2]) -> AttentionShape {
    common::shape(2, lens, [2, 2])
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = dense_cases();
    cases.extend(staged_cases());
    cases.extend(selected_cases());
    cases.extend(matrix_cases());
    cases
}

fn dense_cases() -> Vec<Case> {
    let window = Mask::Window { left: Some(20), right: Some(3) };
    let random = |lens, mask, seed| common::Case::<f32>::random(shape(lens), mask, seed);
    let halves = |lens, mask, seed| common::Case::<f16>::random(shape(lens), mask, seed);
    let mut with_lens = random([5, 37], Mask::Causal, 2);
    with_lens.seq_lens_kv = Some(vec![20, 37]);
    vec![
        dense(Device::baseline(), random([5, 53], Mask::Causal, 1), DType::F32),
        dense(Device::baseline(), with_lens, DType::F32),
        dense(Device::baseline().splits(3), random([3, 53], window, 3), DType::F32),
        dense(Device::baseline().cut(), random([5, 53], Mask::Causal, 4), DType::F32),
        dense(Device::baseline().splits(2).cut(), random([3, 90], Mask::Full, 5), DType::F32),
        dense(Device::baseline(), halves([5, 37], Mask::Causal, 6), DType::F16),
        dense(Device::baseline(), common::Case::<bf16>::random(shape([5, 37]), Mask::Causal, 7), DType::BF16),
        dense(Device::new(Tier::F16, None, TINY), halves([5, 37], Mask::Causal, 8), DType::F16),
        dense(Device::subgroups(Tier::Subgroup), random([5, 53], Mask::Causal, 9), DType::F32),
        dense(Device::subgroups(Tier::SubgroupF16), halves([5, 53], window, 10), DType::F32),
        dense(Device::subgroups(Tier::Subgroup).cut(), random([5, 53], Mask::Causal, 11), DType::F32),
        dense(Device::subgroups(Tier::Subgroup).software(), random([5, 53], Mask::Causal, 12), DType::F32),
        dense(Device::subgroups(Tier::Subgroup).software().splits(3), random([3, 53], window, 13), DType::F32),
        dense(Device::segments(Tier::Subgroup), random([9, 53], Mask::Causal, 14), DType::F32),
        dense(Device::segments(Tier::Subgroup).cut(), random([9, 53], window, 15), DType::F32),
        dense(Device::columns(Tier::Baseline, None), random([5, 53], Mask::Causal, 16), DType::F32),
        dense(Device::columns(Tier::Baseline, None).cut(), halves([5, 53], window, 17), DType::F32),
        dense(Device::columns(Tier::Baseline, None).aligned(), halves([5, 53], Mask::Causal, 16), DType::F32),
        dense(Device::columns(Tier::Subgroup, Some(4..=4)).splits(9), random([2, 90], Mask::Causal, 18), DType::F32),
        dense(Device::columns(Tier::Subgroup, Some(4..=8)).cut(), random([2, 90], window, 19), DType::F32),
        dense(Device::columns(Tier::Subgroup, Some(8..=8)).narrow(512), random([2, 90], window, 20), DType::F32),
        dense(Device::columns(Tier::Subgroup, Some(4..=8)).three_keys(), random([2, 90], window, 21), DType::F32),
        dense(Device::columns(Tier::Baseline, None).narrow(720), random([2, 90], window, 22), DType::F32),
    ]
}

/// Tiles that all groups share, whose columns and values come in several portions where they are wide.
fn staged_cases() -> Vec<Case> {
    let window = Mask::Window { left: Some(20), right: Some(3) };
    let wide = |lens| AttentionShape { head_dim: 36, head_dim_v: 68, ..shape(lens) };
    let random = |shape, mask, seed| common::Case::<f32>::random(shape, mask, seed);
    let halves = |shape, mask, seed| common::Case::<f16>::random(shape, mask, seed);
    // Two portions of weights.
    let more = |device: Device| device.staged().tiled(|tiling| tiling.keys = 8);
    let mut with_lens = random(shape([5, 37]), Mask::Causal, 61);
    with_lens.seq_lens_kv = Some(vec![20, 37]);
    let mut spoiled = random(shape([12, 45]), Mask::Causal, 62);
    // Values of one late key: rows before it stay finite.
    let row = spoiled.v.data().len() / 2 / 45;
    spoiled.v.data_mut()[40 * row..][..row].fill(f32::INFINITY);
    let blocks = |seed| common::Case::<f32>::random(shape([13, 70]), Mask::Causal, seed);
    let heads = SELECTION.with_granularity(Granularity::QueryHead);
    vec![
        dense(Device::baseline().staged(), with_lens, DType::F32),
        dense(Device::baseline().staged(), spoiled, DType::F32),
        dense(more(Device::baseline()), random(wide([5, 53]), Mask::Causal, 63), DType::F32),
        dense(more(Device::baseline()).splits(3), random(wide([5, 90]), window, 64), DType::F32),
        dense(more(Device::baseline()).cut(), random(wide([5, 90]), Mask::Causal, 65), DType::F32),
        dense(Device::new(Tier::F16, None, TINY).staged(), halves(wide([5, 37]), window, 66), DType::F16),
        dense(more(Device::baseline()), halves(wide([5, 37]), window, 67), DType::F16),
        dense(more(Device::subgroups(Tier::Subgroup)), random(wide([9, 53]), Mask::Causal, 68), DType::F32),
        dense(more(Device::subgroups(Tier::SubgroupF16)).cut(), halves(wide([9, 53]), Mask::Full, 69), DType::F32),
        dense(more(Device::segments(Tier::Subgroup)), random(wide([9, 53]), Mask::Causal, 70), DType::F32),
        dense(more(Device::segments(Tier::Subgroup)).software(), random(wide([9, 53]), window, 71), DType::F32),
        selected(Device::baseline().staged(), blocks(72), SELECTION),
        selected(more(Device::baseline()).splits(3), blocks(73), heads),
        selected(more(Device::subgroups(Tier::Subgroup)).cut(), blocks(74), SELECTION),
        selected(more(Device::segments(Tier::Subgroup)), blocks(75), SELECTION),
    ]
}

/// A launch of attention with the plan's own tiling.
pub(crate) fn chosen(caps: &DeviceCaps, shape: AttentionShape, dtype: DType) -> (Launch, Buffers, Tiling) {
    let problem = AttentionProblem::new(shape, dtype).with_mask(Mask::Causal).with_lse();
    let plan = AttentionPlan::new(&problem, caps).unwrap();
    let size = caps.subgroup_size.as_ref().map_or(4, |size| *size.end()) as usize;
    let device =
        Device { caps: caps.clone(), tier: plan.tier(), tiling: plan.tiling(), subgroup_size: size, aligned: false };
    let (mut launches, buffers) = match dtype {
        DType::F16 => parts(&device, &plan, &common::Case::<f16>::random(shape, Mask::Causal, 80), None),
        _ => parts(&device, &plan, &common::Case::<f32>::random(shape, Mask::Causal, 80), None),
    };
    (launches.swap_remove(0), buffers, plan.tiling())
}

fn selected_cases() -> Vec<Case> {
    let random = |seed| common::Case::<f32>::random(shape([13, 70]), Mask::Causal, seed);
    let heads = SELECTION.with_granularity(Granularity::QueryHead);
    vec![
        selected(Device::baseline(), random(20), SELECTION),
        selected(Device::baseline().splits(3), random(21), SELECTION),
        selected(Device::baseline().cut(), random(22), heads),
        selected(Device::subgroups(Tier::Subgroup), random(23), SELECTION),
        selected(Device::segments(Tier::Subgroup).cut(), random(24), SELECTION),
        selected(Device::columns(Tier::Baseline, None), random(25), SELECTION),
        selected(Device::columns(Tier::Subgroup, Some(4..=4)).splits(9), random(26), heads),
    ]
}

fn matrix_cases() -> Vec<Case> {
    let halves = |lens, mask, seed| common::Case::<f16>::random(shape(lens), mask, seed);
    let wide = |head_dim, head_dim_v, lens| AttentionShape { head_dim, head_dim_v, ..shape(lens) };
    // Two rows and columns of matrices; queries that come in two portions.
    let large = |device: Device| device.tiled(|tiling| (tiling.rows, tiling.keys) = (2 * tiling.rows, 2 * tiling.keys));
    let many = |device: Device| device.tiled(|tiling| (tiling.rows, tiling.groups) = (2 * tiling.rows, 8));
    // Enough keys for sums to be folded, in few tiles, and scores that rise by some bits from tile to tile.
    let long = |device: Device| device.tiled(|tiling| (tiling.keys, tiling.groups) = (128, 1));
    let folded = || {
        let shape = AttentionShape { head_dim: 8, head_dim_v: 8, ..common::shape(1, [8, 16500], [1, 1]) };
        let mut case = common::Case::<f16>::random(shape, Mask::Full, STEEP);
        case.q.data_mut().iter_mut().for_each(|x| *x = f16::from_f32(1.0));
        case.k.data_mut().iter_mut().enumerate().for_each(|(at, x)| *x = f16::from_f32((at / 8) as f32 / 2048.0));
        case
    };
    let portions = common::Case::<f16>::random(wide(36, 12, [11, 45]), Mask::Causal, 33);
    // Memory past a sequence holds numbers so large that scaling a head by them would leave nothing of it.
    let scaled = |lens: [u32; 2], seed| {
        let mut case = common::Case::<bf16>::random(shape(lens), Mask::Causal, seed);
        case.seq_lens_kv = Some(vec![lens[1], 20]);
        for tensor in [&mut case.k, &mut case.v] {
            let row = tensor.data().len() / 2 / lens[1] as usize;
            tensor.data_mut()[(lens[1] as usize + 20) * row..].fill(bf16::MAX);
        }
        case
    };
    let mut spoiled = common::Case::<f16>::random(shape([12, 12]), Mask::Causal, 35);
    // Values of one late key: rows before it stay finite.
    let row = spoiled.v.data().len() / 2 / 12;
    spoiled.v.data_mut()[7 * row..][..row].fill(f16::INFINITY);
    vec![
        dense(Device::matrices(8, 8, true), halves([11, 45], Mask::Causal, 30), DType::F32),
        dense(Device::matrices(8, 16, false), halves([11, 45], Mask::Causal, 31), DType::F16),
        dense(Device::matrices(16, 16, true).splits(2), halves([5, 70], Mask::Full, 32), DType::F32),
        dense(Device::matrices(8, 8, true), portions, DType::F32),
        dense(many(Device::matrices(8, 8, true)), halves([70, 45], Mask::Causal, 41), DType::F32),
        dense(large(Device::matrices(8, 8, false)), halves([19, 45], Mask::Causal, 34), DType::F32),
        dense(Device::matrices(8, 8, true), spoiled, DType::F32),
        dense(Device::matrices(8, 8, true), steep::<f16>(shape([6, 45])), DType::F32),
        dense(Device::matrices(8, 16, true), steep::<f16>(shape([6, 45])), DType::F32),
        dense(long(Device::matrices(8, 8, true)), folded(), DType::F32),
        dense(long(Device::matrices(8, 16, false)).cut(), folded(), DType::F32),
        dense(Device::matrices(8, 8, true).cut(), halves([11, 45], Mask::Causal, 36), DType::F32),
        dense(Device::matrices(8, 16, false).cut().splits(2), halves([11, 45], Mask::Causal, 37), DType::F32),
        dense(Device::matrices(16, 32, true).software(), halves([11, 45], Mask::Causal, 38), DType::F32),
        dense(Device::matrices(8, 8, true), scaled([11, 45], 42), DType::F32),
        dense(Device::matrices(8, 16, false).cut().splits(2), scaled([11, 45], 43), DType::BF16),
        selected(Device::matrices(8, 8, true), halves([13, 70], Mask::Causal, 39), SELECTION),
        selected(Device::matrices(8, 16, false).cut(), halves([13, 70], Mask::Causal, 40), SELECTION),
    ]
}

/// Other sizes of groups, rows and matrices, where a lane reads elements of another lane at other places.
pub(crate) fn tilings() -> Vec<Case> {
    let shape = |head_dim, head_dim_v| AttentionShape { head_dim, head_dim_v, ..common::shape(1, [7, 70], [1, 2]) };
    let mut cases = Vec::new();
    for lanes in [4, 8, 16] {
        for (rows, keys, groups) in [(1, 4, 1), (4, 8, 3), (16, 4, 2)] {
            let tiling = Tiling::new(lanes, rows, keys, groups);
            let case = || common::Case::<f32>::random(shape(20, 36), Mask::Causal, 50);
            cases.push(dense(Device::new(Tier::Baseline, None, tiling), case(), DType::F32));
            cases.push(dense(Device::new(Tier::Subgroup, Some(lanes..=lanes), tiling), case(), DType::F32));
            let segments = tiling.with_groups(2 * groups);
            cases.push(dense(Device::new(Tier::Subgroup, Some(lanes..=2 * lanes), segments), case(), DType::F32));
            cases.push(selected(Device::new(Tier::Baseline, None, tiling), case(), SELECTION));
            cases.push(dense(Device::new(Tier::Baseline, None, tiling).staged(), case(), DType::F32));
            cases.push(dense(Device::new(Tier::Subgroup, Some(lanes..=lanes), tiling).staged(), case(), DType::F32));
            cases.push(selected(Device::new(Tier::Baseline, None, tiling).staged(), case(), SELECTION));
            let columns = tiling.with_keys(keys - 1).with_rows(rows.min(8)).with_sharing(Sharing::Columns);
            cases.push(dense(Device::new(Tier::Baseline, None, columns), case(), DType::F32));
            let groups = 2 * groups;
            for keys in [keys - 1, keys] {
                for size in [lanes..=2 * lanes, 2 * lanes..=2 * lanes] {
                    let columns = columns.with_keys(keys).with_groups(groups);
                    cases.push(dense(Device::new(Tier::Subgroup, Some(size), columns), case(), DType::F32));
                }
            }
        }
    }
    for (edge, lanes) in [(8, 4), (8, 8), (8, 32), (8, 64), (16, 8), (16, 16), (16, 64)] {
        for (rows, keys, groups) in [(1, 1, 1), (2, 1, 3), (1, 2, 2)] {
            let tile = |tiling: &mut Tiling| {
                (tiling.rows, tiling.groups) = (rows * edge, groups);
                tiling.keys *= keys;
            };
            let case = || common::Case::<f16>::random(shape(36, 20), Mask::Causal, 51);
            cases.push(dense(Device::matrices(edge, lanes, true).tiled(tile), case(), DType::F32));
            cases.push(dense(Device::matrices(edge, lanes, false).tiled(tile).cut(), case(), DType::F32));
        }
        cases.push(dense(Device::matrices(edge, lanes, true), steep::<f16>(shape(20, 36)), DType::F32));
    }
    cases
}
