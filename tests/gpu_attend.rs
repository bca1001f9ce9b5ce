//! Attention on every adapter, in every tier, against the f64 oracle and against the kernels' twins.

mod common;

use common::bad_values::check_bad_values;
use common::gpu::{
    Buffers, bind, bits, check_twin, contexts, plan_of, problem_of, run, run_twins, submit, tiers, tilings, tiny_tiling,
};
use common::{Case, Exp, MASKS, shape};
use half::{bf16, f16};
use wattn::{AttentionPlan, AttentionShape, Context, DType, Element, LSE_EMPTY, Mask, Tier, Tiling};

/// Calls `check` with every adapter, tier and tiling that `T` tells apart.
fn everywhere<T: Element>(mut check: impl FnMut(&Context, Tier, Tiling)) {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[T::DTYPE]) {
            for tiling in tilings(ctx.caps(), tier) {
                check(ctx, tier, tiling);
            }
        }
    }
}

/// One run against the oracle and against the twins (`twins::attend_prefill`, or `twins::attend_decode` and
/// `twins::merge_splits`).
fn check<T: Element>(ctx: &Context, plan: &AttentionPlan, case: &Case<T>) {
    let what = format!("{} {} {:?} {case:?}", ctx.describe(), plan.tier(), plan.tiling());
    let got = run(ctx, plan, case);
    case.check_against_naive_with(&got, Exp::of(plan), &what);
    let twin = run_twins(plan, case);
    check_twin(plan.tier(), (got.out.data(), got.lse.data()), (twin.out.data(), twin.lse.data()), &what);
}

fn check_everywhere<T: Element>(case: &Case<T>) {
    everywhere::<T>(|ctx, tier, tiling| check(ctx, &plan_of(case, ctx, tier, tiling), case));
}

/// 0, 1, tile - 1, tile, tile + 1, 2 tile + 1, and a prime.
fn around(tile: u32) -> [u32; 7] {
    [0, 1, tile - 1, tile, tile + 1, 2 * tile + 1, 13]
}

#[test]
fn lengths_at_every_border() {
    everywhere::<f32>(|ctx, tier, tiling| {
        for (i, seq_len_q) in around(tiling.tile_q()).into_iter().enumerate() {
            for (j, seq_len_kv) in around(tiling.tile_kv()).into_iter().enumerate() {
                for mask in [Mask::Causal, MASKS[(i + j) % MASKS.len()]] {
                    let case = Case::<f32>::random(shape(1, [seq_len_q, seq_len_kv], [1, 1]), mask, 1);
                    check(ctx, &plan_of(&case, ctx, tier, tiling), &case);
                }
            }
        }
    });
}

/// The tiling that a plan chooses for many rows, at its own borders. In one tier, since the shader is large and compiles long.
#[test]
fn the_default_tiling() {
    for ctx in contexts() {
        let tier = ctx.caps().best_tier();
        let many = Case::<f32>::random(shape(1, [150, 150], [1, 2]), Mask::Causal, 1);
        let plan = AttentionPlan::with_tier(&problem_of(&many, DType::F32), ctx.caps(), tier).unwrap();
        let tiling = plan.tiling();
        for lengths in
            [[150, 150], [tiling.tile_q(), tiling.tile_kv()], [5, tiling.tile_kv() + 1], [2, 2 * tiling.tile_kv() - 1]]
        {
            for mask in [Mask::Causal, Mask::Full, Mask::Window { left: Some(20), right: Some(4) }] {
                let case = Case::<f32>::random(shape(1, lengths, [1, 2]), mask, 2);
                check(ctx, &plan_of(&case, ctx, tier, tiling), &case);
            }
        }
    }
}

#[test]
fn every_mask_and_group_size() {
    for (seed, mask) in (1..).zip(MASKS) {
        check_everywhere(&Case::<f32>::random(shape(2, [21, 29], [2, 2]), mask, seed));
        for group in [3, 16] {
            check_everywhere(&Case::<f32>::painted(shape(1, [5, 37], [2, group]), mask));
        }
    }
    for group in 1..=16 {
        check_everywhere(&Case::<f32>::random(shape(1, [3, 70], [1, group]), Mask::Causal, 9));
    }
}

/// Widths that fill no lane, some lanes, and all lanes several times; different widths for keys and values. One tiling.
#[test]
fn every_kind_of_width() {
    for (seed, [head_dim, head_dim_v]) in (1..).zip([[4, 4], [12, 36], [64, 20], [128, 128], [256, 252]]) {
        let shape = AttentionShape { head_dim, head_dim_v, ..shape(1, [9, 35], [1, 2]) };
        let case = Case::<f32>::random(shape, Mask::Causal, seed);
        for ctx in contexts() {
            for tier in tiers(ctx.caps(), &[DType::F32]) {
                check(ctx, &plan_of(&case, ctx, tier, tiny_tiling(ctx.caps(), tier, 1)), &case);
            }
        }
    }
}

#[test]
fn every_dtype() {
    let shape = shape(2, [11, 45], [2, 3]);
    check_everywhere(&Case::<f16>::random(shape, Mask::Causal, 1));
    check_everywhere(&Case::<f16>::painted(shape, Mask::Full));
    check_everywhere(&Case::<bf16>::random(shape, Mask::Causal, 2));
    check_everywhere(&Case::<bf16>::painted(shape, Mask::Full));
}

/// Rows that do not see a NaN or an infinity keep the bits of a clean run; rows that see it show it.
#[test]
fn bad_values_stay_in_their_rows() {
    for mask in
        [Mask::Causal, Mask::Window { left: Some(3), right: Some(7) }, Mask::Window { left: Some(5), right: Some(0) }]
    {
        let clean = Case::<f32>::random(shape(1, [37, 37], [2, 2]), mask, 3);
        everywhere::<f32>(|ctx, tier, tiling| {
            let plan = plan_of(&clean, ctx, tier, tiling);
            let what = format!("{} {tier} {tiling:?} {mask}", ctx.describe());
            check_bad_values(&clean, Exp::of(&plan), |case| run(ctx, &plan, case), &what);
        });
    }
}

/// Scores 1e30 apart: every weight but the largest is 0, and out is one row of v to the bit.
#[test]
fn huge_scores_pick_their_key() {
    for mask in MASKS {
        let mut case = Case::<f32>::random(shape(1, [13, 37], [1, 2]), mask, 4);
        case.q.data_mut().iter_mut().enumerate().for_each(|(i, q)| *q = if i % 16 == 0 { 1.0 } else { 0.0 });
        for (i, k) in case.k.data_mut().iter_mut().enumerate() {
            *k = if i % 16 == 0 { 1e30 * ((i / 16 * 7 % 37) as f32 - 18.0) } else { 0.0 };
        }
        everywhere::<f32>(|ctx, tier, tiling| {
            let got = run(ctx, &plan_of(&case, ctx, tier, tiling), &case);
            assert_eq!(got.out, case.oracle().out, "{} {tier} {tiling:?} {mask}", ctx.describe());
        });
    }
}

#[test]
fn the_same_bits_on_every_run_and_with_bounds_checks() {
    let mut case = Case::<f32>::random(shape(2, [21, 53], [2, 3]), Mask::Causal, 5);
    for lens in [None, Some(vec![50, 17])] {
        case.seq_lens_kv = lens;
        everywhere::<f32>(|ctx, tier, tiling| {
            let plan = plan_of(&case, ctx, tier, tiling);
            let first = bits(&run(ctx, &plan, &case));
            assert_eq!(first, bits(&run(ctx, &plan, &case)), "{tier} {tiling:?}: another run");
            let checked = ctx.with_checked_shaders().unwrap();
            let what = format!("{} {tier} {tiling:?}: with bounds checks", ctx.describe());
            let guarded = run(&checked, &plan, &case);
            // Hardware's compilers may fuse the sums of another text differently.
            if ctx.caps().software {
                assert_eq!(first, bits(&guarded), "{what}");
            }
            case.check_against_naive_with(&guarded, Exp::of(&plan), &what);
        });
    }
}

/// With one key, out is v: every kind of number goes through the rounding of the store.
#[test]
fn out_rounds_to_nearest_even() {
    let mut case = Case::<f32>::random(shape(4, [1, 1], [256, 1]), Mask::Full, 6);
    let mut random = common::Random(7);
    // The borders of f16 and bf16, ties to even and odd, infinities, NaN, then any bits at all.
    let edges = [
        65504.0,
        65519.9,
        65520.0,
        1e6,
        6.103_515_6e-5,
        6.1e-5,
        5.960_464_5e-8,
        2.980_232_2e-8,
        2.980_233e-8,
        8.9e-8,
        1e-9,
        1.000_488_3,
        1.001_464_8,
        1.003_906_2,
        1.011_718_8,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        0.0,
    ];
    for (i, v) in case.v.data_mut().iter_mut().enumerate() {
        let number = if i < edges.len() * 2 {
            edges[i / 2] * if i % 2 == 0 { 1.0 } else { -1.0 }
        } else if i % 2 == 0 {
            f32::from_bits(random.bits() as u32)
        } else {
            random.unit() * 2f32.powi((random.bits() % 40) as i32 - 28) // the range of f16
        };
        // A device may flush f32 subnormals, and a sum that begins with 0 has no negative zero.
        *v = if number.is_subnormal() || number == 0.0 { 0.0 } else { number };
    }
    check_rounding::<f16>(&case);
    check_rounding::<bf16>(&case);
}

fn check_rounding<O: Element>(case: &Case<f32>) {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F32, O::DTYPE]) {
            for num_splits in [1, 3] {
                let tiling = tiny_tiling(ctx.caps(), tier, num_splits);
                let problem = problem_of(case, O::DTYPE);
                let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), tier, tiling).unwrap();
                let buffers = Buffers::new(ctx, case, &problem);
                let bound = bind(ctx, &plan, buffers.args());
                submit(ctx, |encoder| bound.encode(encoder));
                let (out, _) = buffers.read::<O>(ctx);
                for (&v, got) in case.v.data().iter().zip(out.data()) {
                    let (expected, got) = (O::DTYPE.round(v), got.to_f32());
                    let same = expected.to_bits() == got.to_bits() || (expected.is_nan() && got.is_nan());
                    let what = format!("{} {tier} {} splits {num_splits}", ctx.describe(), O::DTYPE);
                    assert!(same, "{what}: {v:e} became {got:e}, not {expected:e}");
                }
            }
        }
    }
}

#[test]
fn without_lse_out_is_the_same() {
    let case = Case::<f32>::random(shape(1, [7, 40], [1, 2]), Mask::Causal, 8);
    everywhere::<f32>(|ctx, tier, tiling| {
        let with = run(ctx, &plan_of(&case, ctx, tier, tiling), &case);
        let problem = case.problem();
        let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), tier, tiling).unwrap();
        let buffers = Buffers::new(ctx, &case, &problem);
        let bound = bind(ctx, &plan, buffers.args().with_lse(None));
        submit(ctx, |encoder| bound.encode(encoder));
        let (out, lse) = buffers.read::<f32>(ctx);
        assert_eq!(out, with.out, "{} {tier} {tiling:?}", ctx.describe());
        assert!(lse.data().iter().all(|&x| x == 7.0), "nothing wrote the lse");
    });
}

#[test]
fn rows_without_keys_are_zero() {
    // Under a causal mask with fewer keys than queries the first rows see no key; without keys no row does.
    for lengths in [[40, 3], [40, 0]] {
        let case = Case::<f32>::random(shape(1, lengths, [1, 2]), Mask::Causal, 9);
        everywhere::<f32>(|ctx, tier, tiling| {
            let got = run(ctx, &plan_of(&case, ctx, tier, tiling), &case);
            let empty = (40 - lengths[1] as usize) * 2;
            assert!(got.out.data()[..empty * 16].iter().all(|x| x.to_bits() == 0), "{tier} {tiling:?}");
            assert!(got.lse.data()[..empty].iter().all(|&x| x == LSE_EMPTY), "{tier} {tiling:?}");
            assert!(got.lse.data()[empty..].iter().all(|&x| x.abs() < 10.0), "{tier} {tiling:?}");
        });
    }
}
