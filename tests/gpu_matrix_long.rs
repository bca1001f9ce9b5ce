//! Long walks by matrix products: sums that leave the matrices on the way, on every adapter that multiplies them.
//! `bash tests/matrix` provides a software device.

mod common;

use common::gpu::{bits, check_twin, run, run_twins};
use common::matrices::{check, plan_of, unsplit};
use common::{Case, shape};
use half::f16;
use wattn::{AttentionShape, DispatchBudget, Mask};

/// A long walk's sums leave the matrices every 8192 keys and are added up in f32. One key weighs so much that no later product changes its
/// sum: without folding, the sums of all other keys would be lost.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn long_walks_are_folded() {
    let shape = AttentionShape { head_dim: 8, head_dim_v: 8, ..shape(1, [8, 17001], [1, 1]) };
    let mut case = Case::<f16>::random(shape, Mask::Full, 1);
    case.q.data_mut().fill(f16::ZERO);
    case.v
        .data_mut()
        .iter_mut()
        .enumerate()
        .for_each(|(i, v)| *v = f16::from_f32(if i < 8 { 32768.0 } else { 2f32.powi(-13) }));
    let seen = f64::from(shape.seq_len_kv);
    // Of the first 8192 keys only the first one counts.
    let (all, folded) = (32768.0 + (seen - 1.0) * 2f64.powi(-13), 32768.0 + (seen - 8192.0) * 2f64.powi(-13));
    for (ctx, tiling) in unsplit() {
        let mut caps = ctx.caps().clone();
        for budget in [caps.budget, DispatchBudget::new(1, 1)] {
            caps.budget = budget;
            let plan = plan_of(&case, &caps, tiling);
            let folds = plan.dispatches()[0].specialization.constant("FOLD_TILES").unwrap();
            assert_eq!(folds * tiling.tile_kv(), 8192, "{plan}");
            let got = run(ctx, &plan, &case);
            let what = format!("{} {tiling:?}", ctx.describe());
            for out in got.out.data() {
                let sum = f64::from(*out) * seen;
                assert!(sum >= folded - 0.02 && sum <= all + 0.02, "{what}: {sum}, not from {folded} to {all}");
            }
            let twin = run_twins(&plan, &case);
            check_twin(plan.tier(), (got.out.data(), got.lse.data()), (twin.out.data(), twin.lse.data()), &what);
        }
        // Walks of up to 16384 keys, of whole sequences or of splits, are not folded.
        for (seq_len_kv, num_splits) in [(16384, 1), (17001, 2)] {
            let case = Case::<f16>::random(AttentionShape { seq_len_kv, ..shape }, Mask::Full, 1);
            let plan = plan_of(&case, ctx.caps(), tiling.with_num_splits(num_splits));
            assert_eq!(plan.dispatches()[0].specialization.constant("FOLD_TILES"), Some(0));
        }
    }
}

/// Folded sums are rescaled with the others when scores rise, and a walk that is cut anywhere gives the same bits.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn folded_sums_move_and_are_carried() {
    let shape = AttentionShape { head_dim: 8, head_dim_v: 8, ..shape(1, [8, 17001], [1, 1]) };
    let mut case = Case::<f16>::random(shape, Mask::Causal, 2);
    // Scores rise along the keys by some 60 in base 2.
    case.q
        .data_mut()
        .iter_mut()
        .enumerate()
        .for_each(|(i, q)| *q = f16::from_f32(if i % 8 == 0 { 8.0 } else { q.to_f32() }));
    for (i, k) in case.k.data_mut().iter_mut().enumerate() {
        *k = f16::from_f32(if i % 8 == 0 { (i / 8) as f32 / 1150.0 } else { k.to_f32() });
    }
    for (ctx, tiling) in unsplit().into_iter().take(1) {
        let plan = plan_of(&case, ctx.caps(), tiling);
        check(ctx, &plan, &case);
        // The variants that are cut have the same text under every budget.
        let mut caps = ctx.caps().clone();
        let mut bits_of = |budget| {
            caps.budget = budget;
            let plan = plan_of(&case, &caps, tiling);
            (plan.dispatches()[0].stretches.len(), bits(&run(ctx, &plan, &case)))
        };
        let (many, fine) = bits_of(DispatchBudget::new(1 << 18, 1 << 18));
        // A tile of keys costs more where a device's tiling has more rows.
        let (few, coarse) = (19..40)
            .map(|log2| bits_of(DispatchBudget::new(1 << log2, 1 << log2)))
            .find(|(stretches, _)| *stretches <= many / 2)
            .expect("a large budget cuts less often");
        assert!(1 < few && many > 8, "{few} and {many} stretches");
        assert!(coarse == fine, "{} {tiling:?}", ctx.describe());
    }
}
