//! Modifiers of scores on every adapter, in every tier and tiling, against the oracle and the twins.

mod common;

use common::gpu::{check_twin, contexts, tiers, tilings};
use common::modified::{CHAINS, ModifiedCase};
use common::{Case, Exp, MASKS, shape};
use wattn::cpu::twins;
use wattn::{AttentionPlan, Context, Element, MergeProblem, Tier, Tiling};

fn check<T: Element>(ctx: &Context, case: &ModifiedCase<T>, tier: Tier, tiling: Tiling) {
    let mut problem = case.problem().with_lse().with_out_dtype(wattn::DType::F32);
    if case.case.seq_lens_kv.is_some() {
        problem = problem.with_seq_lens_kv();
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
        twins::merge_splits(&merge, &partials.out, &partials.lse).unwrap()
    });
    check_twin(tier, (got.out.data(), got.lse.data()), (&out, &lse), &what);
}

#[test]
fn every_chain_in_every_tiling() {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[wattn::DType::F32]) {
            for (at, tiling) in tilings(ctx.caps(), tier).into_iter().enumerate() {
                for (seed, chain) in (1..).zip(CHAINS) {
                    let mask = MASKS[(at + seed) % MASKS.len()];
                    let sizes = [[1, 33], [13, 70]][seed % 2];
                    let case = Case::<f32>::random(shape(3, sizes, [2, 1 + at as u32 % 3]), mask, seed as u64);
                    check(ctx, &ModifiedCase::new(case, chain), tier, tiling);
                }
            }
        }
    }
}
