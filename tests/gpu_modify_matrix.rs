//! Modifiers of scores by matrix products, on every adapter that has them: `bash tests/matrix` provides one.

mod common;

use common::gpu::{matrix_contexts, tiny_tiling};
use common::matrices::everywhere;
use common::modified::{CHAINS, ModifiedCase, check_hidden_nan, check_on, hidden_nan};
use common::{Case, MASKS, shape};
use half::{bf16, f16};
use wattn::{AttentionPlan, Mask, Tier};

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn every_chain_in_every_tiling() {
    everywhere(|ctx, tiling| {
        for (number, chain) in CHAINS.into_iter().enumerate() {
            let sizes = [[1, 33], [13, 70]][number % 2];
            let case = Case::<f16>::random(shape(3, sizes, [2, 2]), MASKS[number % MASKS.len()], number as u64);
            check_on(ctx, &ModifiedCase::new(case, chain), Tier::Matrix, tiling);
        }
    });
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn bf16_by_f16() {
    for ctx in matrix_contexts() {
        for (number, chain) in CHAINS.into_iter().enumerate() {
            let case = Case::<bf16>::random(shape(3, [13, 41], [2, 2]), Mask::Causal, number as u64);
            let tiling = tiny_tiling(ctx.caps(), Tier::Matrix, 1);
            check_on(ctx, &ModifiedCase::new(case, chain), Tier::Matrix, tiling);
        }
    }
}

/// The value of a hidden key stays out, that of a seen one comes in, whatever it is.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn values_of_hidden_keys_stay_out() {
    everywhere(|ctx, tiling| {
        let case = hidden_nan::<f16>();
        let problem = case.problem().with_lse().with_out_dtype(wattn::DType::F32);
        let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), Tier::Matrix, tiling).unwrap();
        let got = case.with_inputs(|inputs| ctx.attend_planned(&plan, inputs).wait()).unwrap();
        check_hidden_nan(&got, &format!("{} {tiling:?}", ctx.describe()));
    });
}
