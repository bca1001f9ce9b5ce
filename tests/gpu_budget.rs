//! Results have the same bits however a device's work is cut: every kernel, on every adapter. `gpu_matrix.rs` cuts walks of matrices.

mod common;

use common::gpu::{
    Buffers, bind, bits, buffer, contexts, packed, plan_of, problem_of, read_all, run, submit, tiers, tilings,
    tiny_tiling,
};
use common::select::{SelectCase, drawn_case, integer_cases};
use common::selected::callers_cases;
use common::{Case, shape};
use half::f16;
use wattn::{
    AttentionPlan, AttentionShape, Context, DType, DispatchBudget, Engine, Mask, Merge, MergeArgs, MergePlan,
    MergeProblem, SelectionPlan, TensorView, TensorViewMut, Tier,
};

/// Budgets from one place and one tile a dispatch, over a few of each, to budgets that cut only walks or only places.
const BUDGETS: [DispatchBudget; 5] = [
    DispatchBudget::new(1, 1),
    DispatchBudget::new(60_000, 1),
    DispatchBudget::new(200_000, 100_000),
    DispatchBudget::new(u64::MAX, 1),
    DispatchBudget::new(150_000, u64::MAX),
];

/// Calls `check` with every adapter, tier and budget, beside a context that cuts nothing.
fn everywhere(dtype: DType, mut check: impl FnMut(&Context, &Context, Tier)) {
    for ctx in contexts() {
        let whole = ctx.with_budget(DispatchBudget::UNLIMITED);
        // The cuts of walks do not depend on how lanes exchange operands, and lavapipe compiles each variant for ten seconds. So: the
        // plainest tier and the best tier that the type tells apart.
        let tiers = tiers(ctx.caps(), &[dtype]);
        let (plainest, best) = (tiers[0], ctx.caps().best_tier());
        for tier in tiers.into_iter().filter(|&tier| tier == plainest || tier == best) {
            for budget in BUDGETS {
                check(&whole, &ctx.with_budget(budget), tier);
            }
        }
    }
}

fn num_stretches(plan: &AttentionPlan) -> usize {
    plan.dispatches().iter().map(|dispatch| dispatch.stretches.len()).sum()
}

/// Prefill and split decode, with every tiny tiling, where masks make walks of many lengths, some of them empty.
#[test]
fn attention() {
    let heads = AttentionShape { head_dim: 8, head_dim_v: 36, ..shape(2, [37, 101], [1, 2]) };
    // One variant of each kernel serves all masks and lengths.
    let with_lens = |mask, lens: [u32; 2]| {
        let mut case = Case::<f32>::painted(heads, mask);
        case.seq_lens_kv = Some(lens.to_vec());
        case
    };
    let window = Mask::Window { left: Some(9), right: Some(3) };
    let cases = [
        with_lens(Mask::Full, [101, 101]),
        with_lens(Mask::Causal, [101, 101]),
        with_lens(window, [101, 40]),
        with_lens(Mask::Causal, [0, 59]),
    ];
    let mut most = 0;
    everywhere(DType::F32, |whole, cut, tier| {
        // All tilings in one tier, one tiling in the other: compiling takes longest here.
        let kept = if tier == Tier::Baseline { usize::MAX } else { 1 };
        for tiling in tilings(whole.caps(), tier).into_iter().take(kept) {
            for case in &cases {
                let plan = plan_of(case, cut, tier, tiling);
                let expected = run(whole, &plan_of(case, whole, tier, tiling), case);
                let what = format!("{} {case:?}\n{plan}", cut.describe());
                assert_eq!(bits(&run(cut, &plan, case)), bits(&expected), "{what}");
                most = most.max(num_stretches(&plan));
            }
        }
    });
    assert!(most > 200, "{most}");
}

#[test]
fn half_precision() {
    let case = Case::<f16>::random(shape(1, [21, 90], [2, 1]), Mask::Causal, 5);
    everywhere(DType::F16, |whole, cut, tier| {
        let tiling = tiny_tiling(whole.caps(), tier, 1);
        let expected = run(whole, &plan_of(&case, whole, tier, tiling), &case);
        assert_eq!(bits(&run(cut, &plan_of(&case, cut, tier, tiling), &case)), bits(&expected), "{tier}");
    });
}

/// The tilings that plans choose, whose loops are unrolled as devices get them.
#[test]
fn chosen_tilings() {
    let case = Case::<f32>::random(
        AttentionShape { head_dim: 64, head_dim_v: 64, ..shape(1, [70, 700], [1, 2]) },
        Mask::Causal,
        6,
    );
    for ctx in contexts() {
        let tier = ctx.caps().best_tier();
        let [whole, cut] = [DispatchBudget::UNLIMITED, DispatchBudget::new(5_000_000, 3_000_000)]
            .map(|budget| ctx.with_budget(budget));
        let problem = case.problem().with_lse();
        let [expected, got] = [&whole, &cut].map(|ctx| {
            let plan = AttentionPlan::with_tier(&problem, ctx.caps(), tier).unwrap();
            (num_stretches(&plan), bits(&run(ctx, &plan, &case)))
        });
        assert!(expected.0 <= 2 && got.0 > 4, "{} {}", expected.0, got.0);
        assert_eq!(expected.1, got.1, "{}", ctx.describe());
    }
}

/// Where a device has a buffer to spare, walks through lists are cut as well. In one tier.
#[test]
fn block_sparse_attention() {
    let cases = callers_cases::<f32>();
    let mut parts = false;
    everywhere(DType::F32, |whole, cut, tier| {
        if tier != Tier::Baseline {
            return;
        }
        for case in cases.iter().filter(|case| case.selection.block_size == 8 && case.case.seq_lens_kv.is_some()) {
            for splits in [1, 3] {
                let [expected, got] = [whole, cut].map(|ctx| {
                    let problem = problem_of(&case.case, DType::F32).with_blocks(case.selection);
                    let tiling = tiny_tiling(ctx.caps(), tier, splits);
                    let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), tier, tiling).unwrap();
                    parts |= plan.dispatches()[0].stretches.iter().any(|stretch| stretch.first_tile > 0);
                    let inputs = case.case.inputs();
                    bits(&pollster::block_on(ctx.attend_planned(&plan, &inputs.with_blocks(&case.blocks))).unwrap())
                });
                assert_eq!(expected, got, "{} {tier} {}", cut.describe(), case.name);
            }
        }
    });
    assert!(parts || contexts().iter().all(|ctx| ctx.caps().max_storage_buffers == 8));
}

/// HiP's search and all stages of InfiniteHiP, lists and counts.
#[test]
fn selections() {
    let cases: Vec<SelectCase> = integer_cases::<f32>().into_iter().step_by(3).chain((0..6).map(drawn_case)).collect();
    let mut cut_grids = 0;
    for ctx in contexts() {
        let tier = ctx.caps().best_tier();
        let whole = ctx.with_budget(DispatchBudget::UNLIMITED);
        for (index, case) in cases.iter().enumerate() {
            let expected = whole.with_tier(tier).select(&case.problem, &case.inputs()).wait().unwrap();
            let cut = ctx.with_budget(DispatchBudget::new([1, 300_000][index % 2], 1));
            let plan = SelectionPlan::with_tier(&case.problem, cut.caps(), tier).unwrap();
            cut_grids += plan.dispatches().iter().filter(|dispatch| dispatch.stretches.len() > 1).count();
            let got = cut.with_tier(tier).select(&case.problem, &case.inputs()).wait().unwrap();
            assert_eq!(expected, got, "{} {} {plan}", ctx.describe(), case.name);
        }
    }
    assert!(cut_grids > 20, "{cut_grids}");
}

#[test]
fn merges() {
    let [num_parts, num_rows, head_dim_v] = [3, 500, 36];
    let problem = MergeProblem { num_parts, num_rows, head_dim_v };
    for ctx in contexts() {
        let [expected, got] = [DispatchBudget::UNLIMITED, DispatchBudget::new(1, 1)].map(|budget| {
            let ctx = &ctx.with_budget(budget);
            let plan = MergePlan::new(&problem, ctx.caps()).unwrap();
            let painted = |shape, step| common::painted::<f32>(shape, step).into_data();
            let parts_out = buffer(ctx, &painted([num_parts, num_rows, 1, head_dim_v], 7));
            let parts_lse = buffer(ctx, &painted([num_parts, num_rows, 1, 1], 11));
            let [out, lse] = [head_dim_v, 1].map(|width| buffer(ctx, &vec![7.0f32; (num_rows * width) as usize]));
            let view = |buffer, shape| TensorView::new(buffer, DType::F32, packed(shape));
            let view_mut = |buffer, shape| TensorViewMut::new(buffer, DType::F32, packed(shape));
            let args = MergeArgs::new(
                view(&parts_out, [num_parts, num_rows, 1, head_dim_v]),
                view(&parts_lse, [num_parts, num_rows, 1, 1]),
                view_mut(&out, [1, num_rows, 1, head_dim_v]),
                view_mut(&lse, [1, num_rows, 1, 1]),
            );
            let bound = Merge::prepare(ctx, &plan).unwrap().bind(args).unwrap();
            submit(ctx, |encoder| bound.encode(encoder));
            [read_all::<f32>(ctx, &out), read_all(ctx, &lse)].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        assert_eq!(expected, got, "{}", ctx.describe());
    }
}

/// Dispatches encoded one by one, and the one-shot call, which submits them one by one.
#[test]
fn dispatches_may_be_submitted_apart() {
    let case = Case::<f32>::random(shape(1, [37, 101], [1, 2]), Mask::Causal, 7);
    for ctx in contexts() {
        let cut = ctx.with_budget(DispatchBudget::new(200_000, 100_000));
        let problem = case.problem().with_lse();
        let plan = AttentionPlan::new(&problem, cut.caps()).unwrap();
        let expected = run(&cut, &plan, &case);
        let buffers = Buffers::new(&cut, &case, &problem);
        let bound = bind(&cut, &plan, buffers.args());
        assert_eq!(bound.num_stretches(), num_stretches(&plan), "{plan}");
        assert!(bound.num_stretches() > 3, "{plan}");
        for index in 0..bound.num_stretches() {
            submit(&cut, |encoder| {
                bound
                    .encode_stretch_in(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), index);
            });
        }
        let (out, lse) = buffers.read::<f32>(&cut);
        assert_eq!(bits(&wattn::AttentionOutput::new(out, lse)), bits(&expected), "{plan}");
        let at_once = Engine::from(cut.clone()).attend(&case.problem(), &case.inputs()).wait().unwrap();
        assert_eq!(bits(&at_once), bits(&expected), "{plan}");
    }
}
