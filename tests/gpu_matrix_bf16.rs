//! bf16 attention by matrix products of f16, on every adapter that has them: heads of different magnitudes side by side, and losses within
//! the bound, against the f64 oracle and the kernels' twins. `gpu_matrix.rs` has the part shared with f16.

mod common;

use common::bad_values::check_bad_values;
use common::gpu::{
    Buffers, bind, bits, buffer, check_twin, matrix_contexts, problem_of, read_words, run, run_twins, submit,
    tiny_tiling,
};
use common::matrices::everywhere;
use common::{Case, Exp, MASKS, Magnitudes, bound, rows, shape};
use half::bf16;
use wattn::cpu::{oracle, twins};
use wattn::{
    Attention, AttentionOutput, AttentionPlan, AttentionShape, Context, DType, DeviceCaps, DispatchBudget, HostTensor,
    LSE_EMPTY, Mask, TensorView, Tier, Tiling, Workspace,
};

/// Calls `check` with one adapter and one tiling after another, for properties that depend on no tiling.
fn anywhere(mut check: impl FnMut(&Context, Tiling)) {
    for ctx in matrix_contexts() {
        for num_splits in [1, 3] {
            check(ctx, tiny_tiling(ctx.caps(), Tier::Matrix, num_splits));
        }
    }
}

fn plan_of(case: &Case<bf16>, caps: &DeviceCaps, tiling: Tiling) -> AttentionPlan {
    let problem = problem_of(case, DType::F32).with_bf16_by_f16_matrices();
    AttentionPlan::with_tiling(&problem, caps, Tier::Matrix, tiling).unwrap()
}

/// A run whose exponents equal the twin's, which must leave the workspace unchanged.
fn run_with_exponents(ctx: &Context, plan: &AttentionPlan, case: &Case<bf16>, what: &str) -> AttentionOutput {
    let buffers = Buffers::new(ctx, case, plan.problem());
    let memory = buffer(ctx, &vec![7.0f32; (plan.workspace_bytes() / 4) as usize]);
    let workspace = Workspace::from_buffer(memory.clone()).unwrap();
    let bound = Attention::prepare(ctx, plan).unwrap().bind_with(buffers.args(), &workspace).unwrap();
    submit(ctx, |encoder| bound.encode(encoder));
    let exponents = twins::find_exponents(plan, &case.inputs()).unwrap();
    let found = read_words(ctx, &memory);
    assert_eq!(found[found.len() - exponents.len()..], exponents, "{what}: exponents");
    let (out, lse) = buffers.read(ctx);
    AttentionOutput::new(out, lse)
}

/// One run against the oracle and against the twins.
fn check(ctx: &Context, plan: &AttentionPlan, case: &Case<bf16>) {
    let what = format!("{} {:?} {case:?}", ctx.describe(), plan.tiling());
    let got = run_with_exponents(ctx, plan, case, &what);
    case.check_against_naive_with(&got, Exp::of(plan), &what);
    let twin = run_twins(plan, case);
    check_twin(plan.tier(), (got.out.data(), got.lse.data()), (twin.out.data(), twin.lse.data()), &what);
}

/// Head `head` of a tensor, in all sequences.
fn scale_head(tensor: &mut HostTensor<bf16>, head: usize, factor: f32) {
    let [_, _, heads, dim] = tensor.shape().map(|n| n as usize);
    for (i, x) in tensor.data_mut().iter_mut().enumerate() {
        if i / dim % heads == head {
            *x = bf16::from_f32(x.to_f32() * factor);
        }
    }
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn masks_lengths_and_group_sizes() {
    everywhere(|ctx, tiling| {
        for (seed, mask) in (1..).zip(MASKS) {
            let case = Case::random(shape(2, [21, 45], [2, 2]), mask, seed);
            check(ctx, &plan_of(&case, ctx.caps(), tiling), &case);
        }
        for lengths in [[1, 0], [0, 5], [1, 1], [tiling.tile_q() + 1, tiling.tile_kv() + 1]] {
            let case = Case::random(shape(1, lengths, [1, 3]), Mask::Causal, 9);
            check(ctx, &plan_of(&case, ctx.caps(), tiling), &case);
        }
    });
}

/// Widths below a matrix and between two, unequal widths; the text for other devices.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn widths_and_texts() {
    for ctx in matrix_contexts() {
        for (seed, [head_dim, head_dim_v]) in (1..).zip([[4, 12], [36, 20], [64, 64]]) {
            let case =
                Case::random(AttentionShape { head_dim, head_dim_v, ..shape(1, [29, 35], [1, 2]) }, MASKS[4], seed);
            for (matrix_from_vec4, software) in [(true, false), (false, true)] {
                let mut caps = ctx.caps().clone();
                (caps.matrix_from_vec4, caps.software) = (matrix_from_vec4 && caps.matrix_from_vec4, software);
                check(ctx, &plan_of(&case, &caps, tiny_tiling(&caps, Tier::Matrix, 1)), &case);
            }
        }
        // The tiling of plans.
        for lengths in [[150, 150], [40, 300]] {
            let shape = AttentionShape { head_dim: 64, head_dim_v: 64, ..shape(1, lengths, [1, 2]) };
            let case = Case::random(shape, Mask::Causal, 4);
            let problem = problem_of(&case, DType::F32).with_bf16_by_f16_matrices();
            check(ctx, &AttentionPlan::with_tier(&problem, ctx.caps(), Tier::Matrix).unwrap(), &case);
        }
    }
}

/// Powers of two, for each head its own, change nothing but the exponents of out: q grows, k shrinks, v changes either way.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn heads_of_any_size_beside_each_other() {
    let clean = Case::<bf16>::random(shape(2, [13, 37], [2, 2]), Mask::Causal, 3);
    let powers = [(100, -100, 120), (-95, 95, -100)];
    everywhere(|ctx, tiling| {
        let plan = plan_of(&clean, ctx.caps(), tiling);
        let what = format!("{} {tiling:?}", ctx.describe());
        let expected = run(ctx, &plan, &clean);
        let mut case = clean.clone();
        for (head, (q, k, v)) in powers.into_iter().enumerate() {
            for group in 0..2 {
                scale_head(&mut case.q, 2 * head + group, 2f32.powi(q));
            }
            scale_head(&mut case.k, head, 2f32.powi(k));
            scale_head(&mut case.v, head, 2f32.powi(v));
        }
        let got = run_with_exponents(ctx, &plan, &case, &what);
        assert!(got.lse.data().iter().zip(expected.lse.data()).all(|(x, y)| x.to_bits() == y.to_bits()), "{what}: lse");
        for row in rows(&case.shape) {
            let [b, q, h] = row.map(|n| n as usize);
            let power = 2f32.powi(powers[h / 2].2);
            let scaled: Vec<f32> = expected.out.row(b, q, h).iter().map(|x| x * power).collect();
            assert_eq!(got.out.row(b, q, h), scaled, "{what}: {row:?}");
        }
    });
}

/// Heads of 1e30 beside heads of 1e-30, also among the query heads of one KV head.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn huge_and_tiny_heads() {
    let mut case = Case::<bf16>::random(shape(1, [13, 37], [2, 2]), Mask::Causal, 4);
    for (head, factor) in [(0, 1e30), (1, 1e-30), (2, 1e-30), (3, 1e30)] {
        scale_head(&mut case.q, head, factor);
    }
    for (head, factor) in [(0, 1e-30), (1, 1e30)] {
        scale_head(&mut case.k, head, factor);
        scale_head(&mut case.v, head, factor);
    }
    // Scores of the last head would reach 1e60, which no path takes, so its queries are smaller.
    scale_head(&mut case.q, 3, 1e-60);
    everywhere(|ctx, tiling| {
        let plan = plan_of(&case, ctx.caps(), tiling);
        check_scaled(&case, &run(ctx, &plan, &case), Exp::of(&plan), &format!("{} {tiling:?}", ctx.describe()));
    });
}

/// Every element below 2^-28 of its head's largest may count as 0.
const LOST: f64 = 1.0 / (1u64 << 28) as f64;

/// Compares every element with the oracle, within the bound of f16 matrices and the loss of inputs (see numerics.md). Results below 2^-126
/// may be 0.
fn check_scaled(case: &Case<bf16>, got: &AttentionOutput, exp: Exp, what: &str) {
    let problem = case.problem();
    let mut abs = case.clone();
    abs.v.data_mut().iter_mut().for_each(|v| *v = bf16::from_f32(v.to_f32().abs()));
    let largest = |tensor: &HostTensor<bf16>, b: usize, head: usize, len: usize| {
        let of_row = |s| tensor.row(b, s, head).iter().map(|x| f64::from(x.to_f32().abs()));
        (0..len).flat_map(of_row).fold(0.0, f64::max)
    };
    for row in rows(&case.shape) {
        let [b, q, h] = row.map(|n| n as usize);
        let (kv_head, len) = (case.kv_head(row), case.inputs().seq_len_kv(row[0]) as usize);
        let (expected, expected_lse) = oracle::attend_row(&problem, &case.inputs(), row[0], row[1], row[2]);
        let (value, _) = oracle::attend_row(&abs.problem(), &abs.inputs(), row[0], row[1], row[2]);
        let (out, lse) = (got.out.row(b, q, h), got.lse.row(b, q, h)[0]);
        if case.keys(row).next().is_none() {
            assert!(out.iter().all(|&x| x == 0.0) && lse == LSE_EMPTY, "{what}: {row:?} sees nothing");
            continue;
        }
        let of_heads = largest(&case.q, b, h, case.shape.seq_len_q as usize) * largest(&case.k, b, kv_head, len);
        let lost_score = f64::from(problem.softmax_scale()) * f64::from(case.shape.head_dim) * 2.0 * LOST * of_heads;
        let lost_value = LOST * largest(&case.v, b, kv_head, len);
        let (bound_out, bound_lse) =
            bound(&Magnitudes { value: value.clone(), ..case.scores(row) }, case.shape.head_dim, exp);
        for d in 0..out.len() {
            let error = (f64::from(out[d]) - expected[d]).abs();
            let allowed =
                bound_out[d] + 2.0 * (2.0 * lost_score).exp_m1() * value[d] + lost_value + f64::from(f32::MIN_POSITIVE);
            assert!(
                error <= allowed,
                "{what}: {row:?} d {d}: {} is {error:e} from {}, allowed {allowed:e}",
                out[d],
                expected[d]
            );
        }
        let error = (f64::from(lse) - expected_lse).abs();
        assert!(error <= bound_lse + lost_score, "{what}: {row:?} lse {lse} is {error:e} from {expected_lse}");
    }
}

/// One number far above the rest of its head: the others lose their digits below 2^-28 of it, and other heads lose nothing.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn one_outlier() {
    let clean = Case::<bf16>::random(shape(1, [21, 45], [2, 2]), Mask::Causal, 5);
    anywhere(|ctx, tiling| {
        let plan = plan_of(&clean, ctx.caps(), tiling);
        let expected = run(ctx, &plan, &clean);
        for (tensor, power) in [("q", 12), ("k", 12), ("v", 20), ("v", 60), ("v", 127)] {
            let mut case = clean.clone();
            // Query 5 of head 1, and key 29 of KV head 0, which the queries from 5 on see.
            let (into, at) = match tensor {
                "q" => (&mut case.q, (5 * 4 + 1) * 16),
                "k" => (&mut case.k, 29 * 2 * 16),
                _ => (&mut case.v, 29 * 2 * 16),
            };
            into.data_mut()[at + 3] = bf16::from_f32(2f32.powi(power));
            let what = format!("{} {tiling:?} 2^{power} in {tensor}", ctx.describe());
            let got = run_with_exponents(ctx, &plan, &case, &what);
            check_scaled(&case, &got, Exp::of(&plan), &what);
            for q in 0..21 {
                for h in 2..4 {
                    assert_eq!(got.out.row(0, q, h), expected.out.row(0, q, h), "{what}: head {h}");
                }
            }
        }
        // Numbers down to 2^-28 of the largest are exact, so that each row of v comes back unchanged.
        let mut case = clean.clone();
        case.q.data_mut().fill(bf16::ZERO);
        for (i, v) in case.v.data_mut().iter_mut().enumerate() {
            *v = bf16::from_f32(if i % 16 == 0 { 2f32.powi(100) } else { 255.0 * 2f32.powi(100 - 28 - 7) });
        }
        let got = run(ctx, &plan, &case);
        for row in got.out.data().chunks_exact(16) {
            let ratios: Vec<f32> = row[1..].iter().map(|x| row[0] / x * (255.0 * 2f32.powi(-35))).collect();
            assert!(ratios.iter().all(|x| (x - 1.0).abs() <= 1e-6), "{} {tiling:?}: {ratios:?}", ctx.describe());
        }
    });
}

/// Heads of zeros, of the smallest and of the largest numbers, and sequences without keys.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn zeros_and_the_ends_of_the_range() {
    for (seed, number) in (1..).zip([0.0, f32::MIN_POSITIVE, 2f32.powi(-113), bf16::MAX.to_f32()]) {
        for tensor in ["q", "k", "v"] {
            let mut case = Case::<bf16>::random(shape(2, [9, 21], [2, 1]), Mask::Causal, seed);
            case.seq_lens_kv = Some(vec![21, 0]);
            for (name, into) in [("q", &mut case.q), ("k", &mut case.k), ("v", &mut case.v)] {
                if name == tensor {
                    into.data_mut().iter_mut().for_each(|x| *x = bf16::from_f32(number.copysign(x.to_f32())));
                } else if number > 1.0 && name != "v" && tensor != "v" {
                    // Numbers that keep scores small without being subnormal.
                    let small = |x: f32| ((1.0 + x.abs()) * 2f32.powi(-125)).copysign(x);
                    into.data_mut().iter_mut().for_each(|x| *x = bf16::from_f32(small(x.to_f32())));
                }
            }
            anywhere(|ctx, tiling| {
                // A merge adds up the weighted means of all splits, in any tier.
                if tensor == "v" && number > 1.0 && tiling.num_splits > 1 {
                    return;
                }
                let plan = plan_of(&case, ctx.caps(), tiling);
                let what = format!("{} {tiling:?} {tensor} of {number:e}", ctx.describe());
                check_scaled(&case, &run_with_exponents(ctx, &plan, &case, &what), Exp::of(&plan), &what);
            });
        }
    }
}

/// Keys past a sequence's length, before every window, and behind the last query's last key are NaN, infinite or huge: the bits equal those
/// of a run with small numbers there.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn what_no_query_sees_scales_nothing() {
    for (seed, mask) in (1..).zip([Mask::Causal, Mask::Window { left: Some(3), right: Some(2) }, Mask::causal_at(9)]) {
        let mut clean = Case::<bf16>::random(shape(3, [11, 53], [2, 2]), mask, seed);
        let placed = matches!(mask, Mask::CausalAt { .. });
        let lens = if placed { [53; 3] } else { [33, 0, 53] };
        clean.seq_lens_kv = (!placed).then(|| lens.to_vec());
        everywhere(|ctx, tiling| {
            let plan = plan_of(&clean, ctx.caps(), tiling);
            check(ctx, &plan, &clean);
            let expected = bits(&run(ctx, &plan, &clean));
            for bad in [bf16::MAX, bf16::NAN, bf16::INFINITY] {
                let mut case = clean.clone();
                for (b, &len) in lens.iter().enumerate() {
                    let first = case.mask.visible(0, 11, len).start as usize;
                    let end = case.mask.visible(10, 11, len).end as usize;
                    for tensor in [&mut case.k, &mut case.v] {
                        let sequence = &mut tensor.data_mut()[b * 53 * 32..][..53 * 32];
                        sequence[..first * 32].fill(bad);
                        sequence[end * 32..].fill(bad);
                    }
                }
                assert!(expected == bits(&run(ctx, &plan, &case)), "{} {tiling:?} {mask} {bad}", ctx.describe());
            }
        });
    }
}

/// Rows that do not see a NaN or an infinity keep the bits of a clean run; rows that see it show it.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn bad_values_stay_in_their_rows() {
    let clean = Case::<bf16>::random(shape(1, [37, 37], [2, 2]), Mask::Window { left: Some(9), right: Some(7) }, 3);
    everywhere(|ctx, tiling| {
        let plan = plan_of(&clean, ctx.caps(), tiling);
        let what = format!("{} {tiling:?}", ctx.describe());
        check_bad_values(&clean, Exp::of(&plan), |case| run(ctx, &plan, case), &what);
    });
}

/// Scores are integers in base 2 and values integers: out and lse have only the error of one division and one logarithm, as in f16.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn integers_are_exact() {
    let mut case = Case::<bf16>::random(shape(1, [21, 45], [2, 2]), Mask::Causal, 5);
    let integer = |x: &mut bf16, n: f32| *x = bf16::from_f32((x.to_f32() * n).round());
    case.q.data_mut().iter_mut().enumerate().for_each(|(i, q)| integer(q, if i % 16 < 4 { 1.0 } else { 0.0 }));
    case.k.data_mut().iter_mut().for_each(|k| integer(k, 1.0));
    case.v.data_mut().iter_mut().for_each(|v| integer(v, 9.0));
    everywhere(|ctx, tiling| {
        if tiling.num_splits > 1 {
            return;
        }
        let problem =
            problem_of(&case, DType::F32).with_softmax_scale(core::f32::consts::LN_2).with_bf16_by_f16_matrices();
        let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), Tier::Matrix, tiling).unwrap();
        let (got, twin) = (run(ctx, &plan, &case), run_twins(&plan, &case));
        for (got, twin) in [(&got.out, &twin.out), (&got.lse, &twin.lse)] {
            for (got, twin) in got.data().iter().zip(twin.data()) {
                let ulps = (got - twin).abs() / (twin.abs() * f32::EPSILON).max(f32::MIN_POSITIVE);
                assert!(ulps <= 4.0, "{} {tiling:?}: {got}, not {twin}", ctx.describe());
            }
        }
    });
}

/// Walks cut at every tile, repeated runs, bounds checks, and folded sums: the same bits. Several workgroups look at a head's parts, and
/// the last of them has the largest number.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn the_same_bits_however_it_is_cut() {
    let long = AttentionShape { head_dim: 8, head_dim_v: 8, ..shape(1, [8, 17001], [1, 1]) };
    for shape in [shape(2, [19, 75], [2, 2]), long] {
        let mut case = Case::<bf16>::random(shape, Mask::Causal, 6);
        // A number that no workgroup looks at, so large that it overflows to infinity or to f16's largest number.
        for (tensor, largest) in [(&mut case.k, 30.0), (&mut case.v, -30000.0)] {
            *tensor.data_mut().last_mut().unwrap() = bf16::from_f32(largest);
        }
        for ctx in matrix_contexts() {
            let mut caps = ctx.caps().clone();
            let tiling = tiny_tiling(&caps, Tier::Matrix, 1);
            let plan = plan_of(&case, &caps, tiling);
            let heads = shape.batch_size * (shape.num_q_heads + 2 * shape.num_kv_heads);
            let parts = twins::find_exponents(&plan, &case.inputs()).unwrap().len() as u32 / heads;
            assert_eq!(parts, if shape.seq_len_kv > 17000 { 5 } else { 1 }, "{plan}");
            let what = format!("{} {plan}", ctx.describe());
            check_scaled(&case, &run_with_exponents(ctx, &plan, &case, &what), Exp::of(&plan), &what);
            let expected = bits(&run(ctx, &plan, &case));
            assert!(expected == bits(&run(ctx, &plan, &case)), "{}: another run", ctx.describe());
            let checked = ctx.with_checked_shaders().unwrap();
            assert!(expected == bits(&run(&checked, &plan, &case)), "{}: with bounds checks", ctx.describe());
            let budget = if parts > 1 { 1 << 20 } else { 1 };
            caps.budget = DispatchBudget::new(budget, budget);
            let cut = plan_of(&case, &caps, tiling);
            assert!(cut.dispatches()[1].stretches.len() > 3, "{cut}");
            if parts == 1 {
                assert!(expected == bits(&run(ctx, &cut, &case)), "{}: cut", ctx.describe());
            } else {
                // Cut walks are folded alike.
                assert_eq!(cut.dispatches()[1].specialization.constant("FOLD_TILES"), Some(8192 / tiling.tile_kv()));
                check_scaled(&case, &run(ctx, &cut, &case), Exp::of(&cut), &what);
            }
        }
    }
}

/// One large number in a head, at each place of a different sequence, with widths that do not divide a workgroup.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn every_number_is_looked_at() {
    let shape = AttentionShape { head_dim: 36, head_dim_v: 20, ..shape(128, [70, 150], [1, 1]) };
    let clean = Case::<bf16>::random(shape, Mask::Full, 8);
    for ctx in matrix_contexts() {
        let plan = plan_of(&clean, ctx.caps(), tiny_tiling(ctx.caps(), Tier::Matrix, 1));
        // vec4 of k, the largest.
        for first in (0..150 * 9).step_by(128) {
            let mut case = clean.clone();
            for tensor in [&mut case.q, &mut case.k, &mut case.v] {
                let len = tensor.data().len() / 128;
                for (nth, head) in tensor.data_mut().chunks_exact_mut(len).enumerate() {
                    let at = (first + nth) % (head.len() / 4) * 4 + nth % 4;
                    head[at] = bf16::from_f32(-8.0);
                }
            }
            run_with_exponents(ctx, &plan, &case, &format!("{} from {first}", ctx.describe()));
        }
    }
}

/// Heads outermost, and out in bf16.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn strided_tensors_and_out_in_bf16() {
    let case = Case::<bf16>::random(shape(2, [9, 35], [2, 2]), Mask::Causal, 7);
    anywhere(|ctx, tiling| {
        let expected = run(ctx, &plan_of(&case, ctx.caps(), tiling), &case);
        let problem = problem_of(&case, DType::BF16).with_bf16_by_f16_matrices();
        let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), Tier::Matrix, tiling).unwrap();
        let buffers = Buffers::new(ctx, &case, plan.problem());
        // Behind 64 elements that do not belong to the tensor.
        let heads_outermost = |tensor: &HostTensor<bf16>| {
            let [batch, seq, heads, _] = tensor.shape().map(|n| n as usize);
            let mut data = vec![bf16::MAX; 128];
            for b in 0..batch {
                for h in 0..heads {
                    (0..seq).for_each(|s| data.extend_from_slice(tensor.row(b, s, h)));
                }
            }
            data.extend([bf16::MAX; 128]);
            buffer(ctx, &data)
        };
        let [q, k, v] = [&case.q, &case.k, &case.v].map(heads_outermost);
        let view = |buffer, [batch, seq, heads, dim]: [u32; 4]| {
            let mut layout = wattn::Layout::head_major(batch, seq, heads, dim);
            layout.offset = 128;
            TensorView::new(buffer, DType::BF16, layout)
        };
        let shape = case.shape;
        let args = buffers.args_of(view(&q, shape.q()), view(&k, shape.k()), view(&v, shape.v()));
        let bound = bind(ctx, &plan, args);
        submit(ctx, |encoder| bound.encode(encoder));
        let (out, lse) = buffers.read::<bf16>(ctx);
        assert_eq!(lse, expected.lse, "{} {tiling:?}", ctx.describe());
        for (x, expected) in out.data().iter().zip(expected.out.data()) {
            assert_eq!(x.to_f32(), DType::BF16.round(*expected), "{} {tiling:?}", ctx.describe());
        }
    });
}
