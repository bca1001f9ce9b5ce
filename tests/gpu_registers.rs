//! The shaders as GPUs get them, with small arrays unrolled into registers, on whatever device is there. A software
//! device would otherwise never run this text.

mod common;

use common::gpu::{columns_tilings, contexts, segment_tiling, tiers, tiny_tiling};
use common::{Case, Exp, shape};
use wattn::{AttentionPlan, AttentionShape, Context, DType, Mask, Tier, Tiling};

fn check(ctx: &Context, tier: Tier, tiling: Tiling, case: &Case<f32>) {
    let problem = case.problem().out_dtype(DType::F32).with_lse();
    let mut caps = ctx.caps().clone();
    caps.software = false;
    let plan = AttentionPlan::with_tiling(&problem, &caps, tier, tiling).unwrap();
    let wgsl = plan.dispatches()[0].specialization.wgsl();
    assert!(!wgsl.contains("for (var r = 0u; r < ROWS"), "the rows are not unrolled:\n{wgsl}");
    let got = pollster::block_on(ctx.attend_planned(&plan, &case.inputs())).unwrap();
    let what = format!("{} {tier} {tiling:?} {case:?}", ctx.describe());
    case.check_against_naive_with(&got, Exp::of(&plan), &what);
}

#[test]
fn unrolled_shaders_agree_with_the_oracle() {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F32]) {
            let tiny = tiny_tiling(ctx.caps(), tier, 1);
            let tilings = [tiny, Tiling { num_splits: 3, ..tiny }];
            let columns = columns_tilings(ctx.caps(), tier);
            for tiling in tilings.into_iter().chain(columns).chain(segment_tiling(ctx.caps(), tier)) {
                for (seed, mask) in
                    (1..).zip([Mask::Full, Mask::Causal, Mask::Window { left: Some(3), right: Some(7) }])
                {
                    let shape = AttentionShape { head_dim: 8, head_dim_v: 12, ..shape(2, [13, 45], [2, 3]) };
                    check(ctx, tier, tiling, &Case::random(shape, mask, seed));
                }
            }
        }
    }
}
