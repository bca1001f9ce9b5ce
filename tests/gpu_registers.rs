//! The shaders as GPUs get them, with small arrays unrolled into registers, on whatever device is there. A software
//! device would otherwise never run this text.

mod common;

use common::gpu::{columns_tilings, contexts, segment_tiling, staged_tilings, tiers, tiny_tiling};
use common::{Case, Exp, shape};
use wattn::{AttentionPlan, AttentionShape, Context, DType, Mask, Sharing, Tier, Tiling};

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
            let staged = staged_tilings(ctx.caps(), tier);
            for tiling in tilings.into_iter().chain(columns).chain(staged).chain(segment_tiling(ctx.caps(), tier)) {
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

/// What a GPU would take for a prompt: 8 x 8 scores and sums a lane.
#[test]
fn prompts_in_staged_tiles() {
    for ctx in contexts() {
        let mut caps = ctx.caps().clone();
        caps.software = false;
        let shape = AttentionShape { head_dim: 64, head_dim_v: 64, ..shape(1, [70, 150], [1, 2]) };
        let case = Case::<f32>::random(shape, Mask::Causal, 7);
        let plan = AttentionPlan::new(&case.problem().with_lse(), &caps).unwrap();
        assert_eq!(plan.tiling().sharing, Sharing::Tiles, "{plan}");
        check(ctx, plan.tier(), plan.tiling(), &case);
    }
}
