//! Attention by matrix products, on every adapter that has them: against the f64 oracle, which has no tiles, and against the kernels'
//! twins. `bash tests/matrix` provides a software device with matrices of 8 x 8.

mod common;

use common::bad_values::check_bad_values;
use common::gpu::{
    Buffers, bind, bits, check_twin, matrix_contexts, problem_of, run, run_twins, submit, tilings, tiny_tiling,
};
use common::matrices::{check, everywhere, plan_of, unsplit};
use common::selected::callers_cases;
use common::{Case, Exp, MASKS, masks_for_lengths, shape};
use half::{bf16, f16};
use wattn::cpu::twins;
use wattn::{
    Attention, AttentionPlan, AttentionShape, Context, DType, DeviceCaps, DispatchBudget, Element, Error, LSE_EMPTY,
    Mask, TensorView, Tier, Tiling, Workspace,
};

fn check_everywhere(case: &Case<f16>) {
    everywhere(|ctx, tiling| check(ctx, &plan_of(case, ctx.caps(), tiling), case));
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn lengths_at_every_border() {
    let around = |tile: u32| [0, 1, tile - 1, tile, tile + 1, 2 * tile + 1, 13];
    everywhere(|ctx, tiling| {
        for (i, seq_len_q) in around(tiling.tile_q()).into_iter().enumerate() {
            for (j, seq_len_kv) in around(tiling.tile_kv()).into_iter().enumerate() {
                for mask in [Mask::Causal, MASKS[(i + j) % MASKS.len()]] {
                    let case = Case::random(shape(1, [seq_len_q, seq_len_kv], [1, 1]), mask, 1);
                    check(ctx, &plan_of(&case, ctx.caps(), tiling), &case);
                }
            }
        }
    });
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn every_mask_and_group_size() {
    for (seed, mask) in (1..).zip(MASKS) {
        check_everywhere(&Case::random(shape(2, [21, 29], [2, 2]), mask, seed));
        check_everywhere(&Case::painted(shape(1, [5, 37], [2, 3]), mask));
    }
    for group in 1..=16 {
        check_everywhere(&Case::random(shape(1, [3, 70], [1, group]), Mask::Causal, 9));
    }
}

/// Widths below a matrix, between two matrices, and of many; different widths for keys and values; groups that fill their rows or do not.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn every_kind_of_width() {
    let widths = [[4, 4], [12, 36], [64, 20], [36, 72], [8, 8], [20, 12], [16, 4], [4, 16]];
    for (groups, [head_dim, head_dim_v]) in (1..).zip(widths) {
        let shape = AttentionShape { head_dim, head_dim_v, ..shape(1, [29, 35], [1, 2]) };
        let case = Case::random(shape, Mask::Causal, u64::from(groups));
        for ctx in matrix_contexts() {
            let tiling = tiny_tiling(ctx.caps(), Tier::Matrix, 1).with_groups(groups);
            check(ctx, &plan_of(&case, ctx.caps(), tiling), &case);
        }
    }
}

/// The tiling that plans choose, for many rows and for few.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn the_default_tiling() {
    for ctx in matrix_contexts() {
        for lengths in [[150, 150], [70, 33], [2, 300]] {
            for mask in [Mask::Causal, Mask::Window { left: Some(20), right: Some(4) }] {
                let shape = AttentionShape { head_dim: 64, head_dim_v: 64, ..shape(1, lengths, [1, 2]) };
                let case = Case::random(shape, mask, 2);
                let plan = AttentionPlan::with_tier(&problem_of(&case, DType::F32), ctx.caps(), Tier::Matrix).unwrap();
                check(ctx, &plan, &case);
            }
        }
    }
}

/// The text that other devices get: arrays of scalars in workgroup memory, small arrays in registers.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn every_text_of_the_shader() {
    for ctx in matrix_contexts() {
        for (matrix_from_vec4, software) in [(true, false), (false, false), (false, true)] {
            let mut caps = ctx.caps().clone();
            (caps.matrix_from_vec4, caps.software) = (matrix_from_vec4 && caps.matrix_from_vec4, software);
            for tiling in tilings(&caps, Tier::Matrix) {
                let case = Case::random(AttentionShape { head_dim: 24, ..shape(2, [19, 45], [2, 2]) }, Mask::Causal, 3);
                check(ctx, &plan_of(&case, &caps, tiling), &case);
            }
        }
    }
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn splits_and_their_partial_results() {
    for (seed, mask) in (1..).zip(MASKS) {
        let case = Case::random(shape(2, [2, 75], [2, 3]), mask, seed);
        for ctx in matrix_contexts() {
            for num_splits in [2, 3, 7, 64] {
                check(ctx, &plan_of(&case, ctx.caps(), tiny_tiling(ctx.caps(), Tier::Matrix, num_splits)), &case);
            }
            let plan = plan_of(&case, ctx.caps(), tiny_tiling(ctx.caps(), Tier::Matrix, 7));
            let buffers = Buffers::new(ctx, &case, plan.problem());
            let memory = common::gpu::buffer(ctx, &vec![7.0f32; (plan.workspace_bytes() / 4) as usize]);
            let workspace = Workspace::from_buffer(memory.clone()).unwrap();
            let bound = Attention::prepare(ctx, &plan).unwrap().bind_with(buffers.args(), &workspace).unwrap();
            submit(ctx, |encoder| bound.encode(encoder));
            let found = common::gpu::read_all::<f32>(ctx, &memory);
            let twin = twins::attend_decode(&plan, &case.inputs()).unwrap();
            let (out, lse) = common::gpu::partials(&plan, &found);
            check_twin(plan.tier(), (out, &lse), (&twin.out, &twin.lse), &format!("{} {case:?}", ctx.describe()));
        }
    }
}

/// Walks cut at every tile: carrying state from dispatch to dispatch changes no bit.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn walks_in_parts() {
    for (mask, num_splits) in [(Mask::Full, 1), (Mask::Causal, 1), (Mask::Causal, 3)] {
        let case = Case::random(shape(2, [19, 75], [2, 2]), mask, 6);
        everywhere(|ctx, tiling| {
            let mut caps = ctx.caps().clone();
            let tiling = tiling.with_num_splits(num_splits);
            let expected = bits(&run(ctx, &plan_of(&case, &caps, tiling), &case));
            caps.budget = DispatchBudget::new(1, 1);
            let plan = plan_of(&case, &caps, tiling);
            assert!(plan.dispatches()[0].stretches.len() > 3, "{plan}");
            assert!(expected == bits(&run(ctx, &plan, &case)), "{} {tiling:?} {mask}", ctx.describe());
        });
    }
}

/// Keys past a sequence's length are NaN, so that reading one shows.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn lengths_of_their_own() {
    for (seed, mask) in (1..).zip(masks_for_lengths()) {
        let mut case = Case::<f16>::random(shape(3, [11, 53], [2, 2]), mask, seed);
        let lens = [33, 0, 53];
        case.seq_lens_kv = Some(lens.to_vec());
        for (b, &len) in lens.iter().enumerate() {
            for tensor in [&mut case.k, &mut case.v] {
                tensor.data_mut()[b * 53 * 32..][..53 * 32][len as usize * 32..].fill(f16::NAN);
            }
        }
        check_everywhere(&case);
    }
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn callers_lists() {
    for ctx in matrix_contexts() {
        for (index, case) in callers_cases::<f16>().iter().enumerate().filter(|(index, _)| index % 11 == 0) {
            let problem = problem_of(&case.case, DType::F32).with_blocks(case.selection);
            let tilings = tilings(ctx.caps(), Tier::Matrix);
            let plan =
                AttentionPlan::with_tiling(&problem, ctx.caps(), Tier::Matrix, tilings[index % tilings.len()]).unwrap();
            let inputs = case.case.inputs();
            let got = pollster::block_on(ctx.attend_planned(&plan, &inputs.with_blocks(&case.blocks))).unwrap();
            case.check(&got, Exp::of(&plan));
        }
    }
}

/// Rows that do not see a NaN or an infinity keep the bits of a clean run; rows that see it show it.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn bad_values_stay_in_their_rows() {
    for mask in [Mask::Causal, Mask::Window { left: Some(3), right: Some(7) }] {
        let clean = Case::<f16>::random(shape(1, [37, 37], [2, 2]), mask, 3);
        everywhere(|ctx, tiling| {
            let plan = plan_of(&clean, ctx.caps(), tiling);
            let what = format!("{} {tiling:?} {mask}", ctx.describe());
            check_bad_values(&clean, Exp::of(&plan), |case| run(ctx, &plan, case), &what);
        });
    }
}

/// Rows of one matrix of queries move at their own paces: their scores rise from tile to tile by more than the slack of a row's reference,
/// rise by less, or fall.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn sums_move_when_scores_rise() {
    let mut case = Case::<f16>::random(shape(1, [19, 75], [1, 2]), Mask::Full, 4);
    for (i, q) in case.q.data_mut().iter_mut().enumerate() {
        // The pace grows from -1 to 1 along the rows.
        let pace = ((i / 16) % 9) as f32 / 4.0 - 1.0;
        *q = f16::from_f32(if i % 16 == 0 { 4.0 * pace } else { q.to_f32() / 8.0 });
    }
    for (i, k) in case.k.data_mut().iter_mut().enumerate() {
        *k = f16::from_f32(if i % 16 == 0 { (i / 16) as f32 } else { k.to_f32() / 8.0 });
    }
    for mask in MASKS {
        case.mask = mask;
        check_everywhere(&case);
    }
}

/// Scores 1e4 apart: every weight but the largest is 0, and out is one row of v to the bit.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn huge_scores_pick_their_key() {
    for mask in MASKS {
        let mut case = Case::<f16>::random(shape(1, [13, 37], [1, 2]), mask, 4);
        case.q
            .data_mut()
            .iter_mut()
            .enumerate()
            .for_each(|(i, q)| *q = f16::from_f32(if i % 16 == 0 { 60.0 } else { 0.0 }));
        for (i, k) in case.k.data_mut().iter_mut().enumerate() {
            *k = f16::from_f32(if i % 16 == 0 { 3000.0 * ((i / 16 * 7 % 37) as f32 - 18.0) } else { 0.0 });
        }
        everywhere(|ctx, tiling| {
            let got = run(ctx, &plan_of(&case, ctx.caps(), tiling), &case);
            assert_eq!(got.out, case.oracle().out, "{} {tiling:?} {mask}", ctx.describe());
        });
    }
}

/// Scores are integers in base 2 and values integers, so that every product and sum is exact: out and lse have only the error of one
/// division and one logarithm.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn integers_are_exact() {
    for mask in MASKS {
        let mut case = Case::<f16>::random(shape(1, [21, 45], [2, 2]), mask, 5);
        let integer = |x: &mut f16, n: f32| *x = f16::from_f32((x.to_f32() * n).round());
        // Four columns of integers: scores are at most 4 apart from 0, so that no weight is below 2^-8 of the largest and all sums fit into
        // the 24 bits of an f32, which a matrix unit that cuts sums off needs to be exact.
        case.q.data_mut().iter_mut().enumerate().for_each(|(i, q)| integer(q, if i % 16 < 4 { 1.0 } else { 0.0 }));
        case.k.data_mut().iter_mut().for_each(|k| integer(k, 1.0));
        case.v.data_mut().iter_mut().for_each(|v| integer(v, 9.0));
        // A merge of splits takes exponentials of numbers that are no integers.
        for (ctx, tiling) in unsplit() {
            let problem = problem_of(&case, DType::F32).with_softmax_scale(core::f32::consts::LN_2);
            let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), Tier::Matrix, tiling).unwrap();
            let (got, twin) = (run(ctx, &plan, &case), run_twins(&plan, &case));
            for (got, twin) in [(&got.out, &twin.out), (&got.lse, &twin.lse)] {
                for (got, twin) in got.data().iter().zip(twin.data()) {
                    let ulps = (got - twin).abs() / (twin.abs() * f32::EPSILON).max(f32::MIN_POSITIVE);
                    assert!(ulps <= 4.0, "{} {tiling:?} {mask}: {got}, not {twin}", ctx.describe());
                }
            }
        }
    }
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn the_same_bits_on_every_run_and_with_bounds_checks() {
    let mut case = Case::<f16>::random(shape(2, [21, 53], [2, 3]), Mask::Causal, 5);
    for lens in [None, Some(vec![50, 17])] {
        case.seq_lens_kv = lens;
        everywhere(|ctx, tiling| {
            let plan = plan_of(&case, ctx.caps(), tiling);
            let first = bits(&run(ctx, &plan, &case));
            assert!(first == bits(&run(ctx, &plan, &case)), "{tiling:?}: another run");
            let checked = ctx.with_checked_shaders().unwrap();
            let what = format!("{} {tiling:?}: with bounds checks", ctx.describe());
            let guarded = run(&checked, &plan, &case);
            // Hardware's compilers may fuse the sums of another text differently.
            if ctx.caps().software {
                assert!(first == bits(&guarded), "{what}");
            }
            case.check_against_naive_with(&guarded, Exp::of(&plan), &what);
        });
    }
}

/// An out of every type, with rows that see no key, and without an lse.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn every_out() {
    fn check_out<O: Element>(ctx: &Context, case: &Case<f16>, tiling: Tiling) {
        let expected = run(ctx, &plan_of(case, ctx.caps(), tiling), case);
        let problem = case.problem().with_out_dtype(O::DTYPE);
        let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), Tier::Matrix, tiling).unwrap();
        let buffers = Buffers::new(ctx, case, &problem);
        let bound = bind(ctx, &plan, buffers.args().with_lse(None));
        submit(ctx, |encoder| bound.encode(encoder));
        let (out, lse) = buffers.read::<O>(ctx);
        let rounded = |x: &f32| O::DTYPE.round(*x);
        assert!(out.data().iter().zip(expected.out.data()).all(|(x, e)| x.to_f32() == rounded(e)), "{}", O::DTYPE);
        assert!(lse.data().iter().all(|&x| x == 7.0), "nothing wrote the lse");
        assert!(expected.out.data()[..37 * 2 * 16].iter().all(|x| x.to_bits() == 0));
        assert!(expected.lse.data()[..37 * 2].iter().all(|&x| x == LSE_EMPTY));
    }
    let case = Case::random(shape(1, [40, 3], [1, 2]), Mask::Causal, 9);
    everywhere(|ctx, tiling| {
        check_out::<f32>(ctx, &case, tiling);
        check_out::<f16>(ctx, &case, tiling);
        check_out::<bf16>(ctx, &case, tiling);
    });
}

/// Heads outermost, the order of caches of keys and values, and rows of q that begin anywhere.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn strided_tensors() {
    let case = Case::<f16>::random(shape(2, [9, 35], [2, 2]), Mask::Causal, 7);
    everywhere(|ctx, tiling| {
        let plan = plan_of(&case, ctx.caps(), tiling);
        let expected = run(ctx, &plan, &case);
        let buffers = Buffers::new(ctx, &case, plan.problem());
        let heads_outermost = |tensor: &wattn::HostTensor<f16>| {
            let [batch, seq, heads, _] = tensor.shape().map(|n| n as usize);
            let mut data = Vec::new();
            for b in 0..batch {
                for h in 0..heads {
                    (0..seq).for_each(|s| data.extend_from_slice(tensor.row(b, s, h)));
                }
            }
            common::gpu::buffer(ctx, &data)
        };
        let (k, v) = (heads_outermost(&case.k), heads_outermost(&case.v));
        let layout = |[batch, seq, heads, dim]: [u32; 4]| wattn::Layout::head_major(batch, seq, heads, dim);
        let args = buffers.args_of(
            buffers.q_view(),
            TensorView::new(&k, DType::F16, layout(case.shape.k())),
            TensorView::new(&v, DType::F16, layout(case.shape.v())),
        );
        let bound = bind(ctx, &plan, args);
        submit(ctx, |encoder| bound.encode(encoder));
        let (out, lse) = buffers.read::<f32>(ctx);
        assert_eq!((out, lse), (expected.out, expected.lse), "{} {tiling:?}", ctx.describe());
    });
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn what_cannot_be_multiplied_is_an_error() {
    let shape = shape(1, [64, 64], [1, 1]);
    let mut caps = DeviceCaps::BASELINE;
    let f16_problem = Case::<f16>::random(shape, Mask::Causal, 1).problem();
    let plan = AttentionPlan::with_tier(&f16_problem, &caps, Tier::Matrix);
    assert!(matches!(plan, Err(Error::MissingFeature { needed_for: "f16" | "matrix", .. })), "{plan:?}");
    for ctx in matrix_contexts() {
        for problem in [
            Case::<f32>::random(shape, Mask::Causal, 1).problem(),
            Case::<bf16>::random(shape, Mask::Causal, 1).problem(),
        ] {
            let plan = AttentionPlan::with_tier(&problem, ctx.caps(), Tier::Matrix);
            assert!(matches!(plan, Err(Error::Argument { argument: "tier", .. })), "{plan:?}");
        }
        caps = ctx.caps().clone();
        caps.max_workgroup_storage_bytes = 1024;
        let plan = AttentionPlan::with_tier(&f16_problem, &caps, Tier::Matrix);
        assert!(matches!(plan, Err(Error::Limit { limit: "max_compute_workgroup_storage_size", .. })), "{plan:?}");
        assert_ne!(AttentionPlan::best_tier(&f16_problem, &caps), Tier::Matrix);
        let tiling = tiny_tiling(ctx.caps(), Tier::Matrix, 1);
        for (tiling, field) in [
            (tiling.with_lanes(2 * tiling.lanes), "lanes"),
            (tiling.with_rows(4), "rows"),
            (tiling.with_keys(1000), "keys"),
        ] {
            let plan = AttentionPlan::with_tiling(&f16_problem, ctx.caps(), Tier::Matrix, tiling);
            assert!(matches!(plan, Err(Error::Invalid { field: found, .. }) if found == field), "{field}: {plan:?}");
        }
    }
}
