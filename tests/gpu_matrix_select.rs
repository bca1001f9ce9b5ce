//! HiP's scores by matrix products, on every adapter that has them: every list and every round of integer cases to the bit, against the
//! oracle and the kernels' twins. `bash tests/matrix` provides a software device.

mod common;

use common::bad_scores::{spoiled_cases, undecided_cases};
use common::bound_selection::{Bound, run_twins};
use common::certificate::certify_all;
use common::gpu::matrix_contexts;
use common::select::{SelectCase, assert_invariants, assert_lists_equal, float_cases, integer_cases, shape};
use half::f16;
use wattn::cpu::oracle;
use wattn::{
    Candidates, Context, DType, DeviceCaps, Error, Granularity, Hip, SelectionInputs, SelectionMethod, SelectionPlan,
    SelectionProblem, Tier,
};

fn is_hip(case: &SelectCase<f16>) -> bool {
    matches!(case.problem.method(), SelectionMethod::Hip(_))
}

fn plan_of(caps: &DeviceCaps, case: &SelectCase<f16>) -> SelectionPlan {
    SelectionPlan::with_tier(&case.problem, caps, Tier::Matrix).unwrap()
}

/// Lists against the oracle's and the twins'.
fn check(ctx: &Context, plan: &SelectionPlan, case: &SelectCase<f16>) {
    let what = format!("{} {:?} {}", ctx.describe(), plan.tiling(), case.name);
    let expected = oracle::select(&case.problem, &case.inputs()).unwrap();
    assert_lists_equal(&run_twins(plan, case), &expected, &format!("twins of {what}"));
    assert_lists_equal(&Bound::new(ctx, plan, case).run(ctx, 0), &expected, &what);
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn integer_cases_exactly() {
    for ctx in matrix_contexts() {
        for case in integer_cases::<f16>().iter().filter(|case| is_hip(case)) {
            let plan = plan_of(ctx.caps(), case);
            let text = plan.dispatches()[1].specialization.wgsl();
            assert!(text.contains("coopMultiplyAdd"), "{}: no matrices", case.name);
            check(ctx, &plan, case);
        }
    }
}

/// A product that is NaN counts as an absent score, and affects no other score of its matrix.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn what_nan_and_infinity_do_is_defined() {
    for ctx in matrix_contexts() {
        for case in spoiled_cases::<f16>().iter().filter(|case| is_hip(case)) {
            check(ctx, &plan_of(ctx.caps(), case), case);
        }
        for case in undecided_cases::<f16>().iter().filter(|case| is_hip(case)) {
            let bound = Bound::new(ctx, &plan_of(ctx.caps(), case), case);
            let got = bound.run(ctx, 0);
            assert_invariants(&case.problem, case.seq_lens_kv.as_deref(), &got, &case.name);
            assert_lists_equal(&bound.run(ctx, 0), &got, &case.name);
        }
    }
}

/// InfiniteHiP's samples are means, which f16 does not hold: its kernels take no matrices, and run beside kernels that do.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn infinite_hip_takes_none() {
    for ctx in matrix_contexts() {
        for case in integer_cases::<f16>().iter().filter(|case| !is_hip(case) && case.name.contains("prime")) {
            check(ctx, &plan_of(ctx.caps(), case), case);
        }
    }
}

/// Several heads of one KV head and of several; samples that fill part of a matrix, or more than one; keys with strides; the text with
/// arrays of scalars, and a workgroup of fewer subgroups.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn every_shape_of_samples() {
    for (seed, (granularity, stride_q, block_size_k)) in (1..).zip([
        (Granularity::QueryHead, 1, 2),
        (Granularity::KvHead, 3, 4),
        (Granularity::Layer, 5, 1),
        (Granularity::Layer, 16, 2),
    ]) {
        let hip = Hip::default()
            .with_top_k(32)
            .with_block_size_q(16)
            .with_stride_q(stride_q)
            .with_block_size_k(block_size_k)
            .with_stride_k(block_size_k.min(2))
            .with_sink_size(4)
            .with_window_size(8);
        let problem =
            SelectionProblem::new(shape(1, [37, 700], [4, 2], 24), DType::F16, hip).with_granularity(granularity);
        let case = SelectCase::<f16>::integers(format!("{granularity}, every {stride_q}"), problem, seed);
        for ctx in matrix_contexts() {
            let mut caps = ctx.caps().clone();
            check(ctx, &plan_of(&caps, &case), &case);
            let tiling = plan_of(&caps, &case).tiling();
            let tiling = tiling.with_search_groups((16 / tiling.lanes).max(1));
            let small = SelectionPlan::with_tiling(&case.problem, &caps, Tier::Matrix, tiling).unwrap();
            check(ctx, &small, &case);
            let tiling = tiling.with_candidates(Candidates::Workgroup);
            let in_workgroup = SelectionPlan::with_tiling(&case.problem, &caps, Tier::Matrix, tiling).unwrap();
            assert_eq!(in_workgroup.scratch_bytes(), 0, "{in_workgroup}");
            check(ctx, &in_workgroup, &case);
            (caps.matrix_from_vec4, caps.software) = (false, false);
            check(ctx, &plan_of(&caps, &case), &case);
        }
    }
}

/// The first blocks of the groups after each round.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn every_round() {
    for ctx in matrix_contexts() {
        let cases = integer_cases::<f16>();
        for case in cases.iter().filter(|case| is_hip(case) && case.name.starts_with("HiP, prime")) {
            let (_, traces) = oracle::select_traced(&case.problem, &case.inputs()).unwrap();
            for rounds in 0..traces[0].rounds.len() as u32 {
                let plan = plan_of(ctx.caps(), case).with_rounds(rounds);
                let got = Bound::new(ctx, &plan, case).run(ctx, 0);
                assert_eq!(got, run_twins(&plan, case), "{} {} after {rounds} rounds", ctx.describe(), case.name);
            }
        }
    }
}

/// Floats: rounding must allow every choice.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn floats_are_chosen_as_rounding_allows() {
    for ctx in matrix_contexts() {
        let cases: Vec<SelectCase<f16>> = float_cases::<f16>().into_iter().filter(is_hip).collect();
        assert!(!cases.is_empty());
        let select = |problem: &SelectionProblem, inputs: &SelectionInputs<'_, f16>| {
            ctx.with_tier(Tier::Matrix).select(problem, inputs).wait()
        };
        certify_all(&select, &cases, &ctx.describe());
    }
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn tilings_that_hold_no_matrix_are_errors() {
    for ctx in matrix_contexts() {
        let problem = SelectionProblem::new(shape(1, [64, 700], [2, 2], 64), DType::F16, Hip::default());
        let tiling = SelectionPlan::with_tier(&problem, ctx.caps(), Tier::Matrix).unwrap().tiling();
        let lanes = tiling.with_lanes(2 * tiling.lanes);
        let plan = SelectionPlan::with_tiling(&problem, ctx.caps(), Tier::Matrix, lanes);
        assert!(matches!(plan, Err(Error::Invalid { field: "lanes", .. })), "{plan:?}");
        let groups = tiling.with_search_groups(512 / tiling.lanes);
        let plan = SelectionPlan::with_tiling(&problem, ctx.caps(), Tier::Matrix, groups);
        assert!(matches!(plan, Err(Error::Limit { limit: "max_compute_workgroup_storage_size", .. })), "{plan:?}");
        let floats = SelectionProblem::new(*problem.shape(), DType::F32, Hip::default());
        let plan = SelectionPlan::with_tier(&floats, ctx.caps(), Tier::Matrix);
        assert!(matches!(plan, Err(Error::Argument { argument: "tier", .. })), "{plan:?}");
    }
}
