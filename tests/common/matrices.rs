//! Helpers of the tests of matrix products: every adapter that has them, every tiny tiling, a comparison with the oracle and the twins.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use half::f16;
use wattn::{AttentionPlan, Context, DType, DeviceCaps, Tier, Tiling};

use super::gpu::{check_twin, matrix_contexts, problem_of, run, run_twins, tilings};
use super::{Case, Exp};

/// Calls `check` with every adapter and tiny tiling.
pub fn everywhere(mut check: impl FnMut(&Context, Tiling)) {
    for ctx in matrix_contexts() {
        for tiling in tilings(ctx.caps(), Tier::Matrix) {
            check(ctx, tiling);
        }
    }
}

/// The same without splits.
pub fn unsplit() -> Vec<(&'static Context, Tiling)> {
    let tilings =
        |ctx: &'static Context| tilings(ctx.caps(), Tier::Matrix).into_iter().map(move |tiling| (ctx, tiling));
    matrix_contexts().into_iter().flat_map(tilings).filter(|(_, tiling)| tiling.num_splits == 1).collect()
}

pub fn plan_of(case: &Case<f16>, caps: &DeviceCaps, tiling: Tiling) -> AttentionPlan {
    AttentionPlan::with_tiling(&problem_of(case, DType::F32), caps, Tier::Matrix, tiling).unwrap()
}

/// One run against the oracle and against the twins.
pub fn check(ctx: &Context, plan: &AttentionPlan, case: &Case<f16>) {
    let what = format!("{} {:?} {case:?}", ctx.describe(), plan.tiling());
    let got = run(ctx, plan, case);
    case.check_against_naive_with(&got, Exp::of(plan), &what);
    let twin = run_twins(plan, case);
    check_twin(plan.tier(), (got.out.data(), got.lse.data()), (twin.out.data(), twin.lse.data()), &what);
}
