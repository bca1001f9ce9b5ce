//! The shaders as GPUs get them, with small arrays unrolled into registers, on every device. A software device would otherwise never run
//! this text.

mod common;

use common::gpu::{columns_tilings, contexts, segment_tiling, staged_tilings, tiers, tiny_tiling};
use common::{Case, Exp, shape};
use wattn::{AttentionPlan, AttentionShape, Context, DType, Mask, Sharing, Tier, Tiling};

fn check(ctx: &Context, tier: Tier, tiling: Tiling, case: &Case<f32>) {
    let problem = case.problem().with_out_dtype(DType::F32).with_lse();
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
            let tilings = [tiny, tiny.with_num_splits(3)];
            let columns = columns_tilings(ctx.caps(), tier);
            // The smaller form: SwiftShader's compiler takes more than 20 GiB for the text of the larger one at these narrow widths.
            let staged = staged_tilings(ctx.caps(), tier).into_iter().take(1);
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

/// One query, with the tilings of large GPUs: odd numbers of heads, widths that fill no number of lanes, windows, walks of one workgroup
/// and of many.
#[test]
fn decoding_as_gpus_plan_it() {
    let of = |heads: [u32; 2], seq_len_kv, widths: [u32; 2]| AttentionShape {
        head_dim: widths[0],
        head_dim_v: widths[1],
        ..shape(1, [1, seq_len_kv], heads)
    };
    let shapes = [of([1, 5], 700, [32, 64]), of([2, 1], 1100, [80, 36])];
    let window = Mask::Window { left: Some(600), right: Some(0) };
    for ctx in contexts() {
        let mut caps = ctx.caps().clone();
        caps.software = false;
        for tier in tiers(ctx.caps(), &[DType::F32]) {
            for (seed, (shape, mask)) in (1..).zip(shapes.into_iter().zip([Mask::Causal, window])) {
                let case = Case::<f32>::random(shape, mask, seed);
                let problem = case.problem().with_lse();
                let tiling = AttentionPlan::with_tier(&problem, &caps, tier).unwrap().tiling();
                assert_eq!(tiling.sharing, Sharing::Columns, "{tiling}");
                check(ctx, tier, tiling, &case);
            }
        }
    }
}

/// A GPU's tiling for a prompt: 8 x 8 scores and sums in a lane.
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
