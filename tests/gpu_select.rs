//! Selection on every adapter, in every tier: the specification's golden vectors, and every round, stage and list of
//! integer cases to the bit, against the oracle and the kernels' twins (`twins::search_tree`, `twins::select_stages`).

mod common;

use common::bad_scores::{spoiled_cases, undecided_cases};
use common::bound_selection::{Bound, run_twins};
use common::certificate::certify_all;
use common::golden;
use common::gpu::{contexts, read_all, read_words, tiers};
use common::select::{
    SelectCase, assert_invariants, assert_lists_equal, drawn_case, float_cases, integer_cases, shape, three_stages,
};
use half::{bf16, f16};
use wattn::cpu::{oracle, twins};
use wattn::{
    Candidates, Context, DType, DeviceCaps, Element, Hip, HostBlockLists, Preset, SelectionInputs, SelectionMethod,
    SelectionPlan, SelectionProblem, SelectionTiling, Sharing, Tier,
};

/// Calls `check` with every adapter and tier that `T` tells apart.
fn everywhere<T: Element>(mut check: impl FnMut(&Context, Tier)) {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[T::DTYPE]) {
            check(ctx, tier);
        }
    }
}

/// Small workgroups, with few samples in a pass, so that their borders are cheap to reach.
fn tiny_tiling(caps: &DeviceCaps, tier: Tier) -> SelectionTiling {
    let (lanes, whole) = match (tier.subgroup(), &caps.subgroup_size) {
        (true, Some(size)) => (*size.start(), *size.end()),
        (false, Some(size)) if tier.matrix() => (*size.start(), *size.end()),
        _ => (4, 4),
    };
    let groups = 16u32.max(whole) / lanes;
    SelectionTiling::SMALLEST
        .with_lanes(lanes)
        .with_rows(2)
        .with_search_groups(groups)
        .with_score_groups(groups)
        .with_top_k_size(16)
        .with_max_searches(2)
        .with_sharing(Sharing::Keys)
        .with_candidates(Candidates::Scratch)
}

/// Every member of the families that plans choose from, in small sizes; and in the sizes of a GPU, where parts of subgroups share the rows
/// of keys.
fn tilings(caps: &DeviceCaps, tier: Tier) -> Vec<SelectionTiling> {
    let tiny = tiny_tiling(caps, tier);
    let columns = tiny.with_sharing(Sharing::Columns).with_rows(1);
    let large = columns.with_search_groups(64).with_score_groups(16).with_top_k_size(256).with_lanes(4);
    let in_workgroup = |tiling: SelectionTiling| tiling.with_candidates(Candidates::Workgroup);
    vec![tiny, in_workgroup(tiny), in_workgroup(columns), large, in_workgroup(large)]
}

/// The plan's own tiling, and the tiling of a GPU.
fn plans_of<T: Element>(ctx: &Context, tier: Tier, case: &SelectCase<T>) -> Vec<SelectionPlan> {
    let mut plans = vec![plan_of(ctx, tier, case)];
    let tiling = tilings(ctx.caps(), tier)[2].with_candidates(Candidates::Workgroup);
    // Matrices have a sharing of their own.
    plans.extend(SelectionPlan::with_tiling(&case.problem, ctx.caps(), tier, tiling));
    assert!(plans.len() == 2 || tier.matrix());
    plans
}

fn plan_of<T: Element>(ctx: &Context, tier: Tier, case: &SelectCase<T>) -> SelectionPlan {
    SelectionPlan::with_tier(&case.problem, ctx.caps(), tier).unwrap()
}

#[test]
fn the_golden_vectors() {
    everywhere::<f32>(|ctx, tier| {
        let select = |problem: &SelectionProblem, inputs: &SelectionInputs<'_>| {
            ctx.with_tier(tier).select(problem, inputs).wait()
        };
        golden::check_selector(&select, &format!("{} {tier}", ctx.describe()));
    });
}

/// Integers make every sum exact, so lists are equal to the bit, padding included.
#[test]
fn integer_cases_exactly() {
    let mut cases = integer_cases::<f32>();
    cases.extend((0..60).map(drawn_case));
    let expected: Vec<HostBlockLists> =
        cases.iter().map(|case| oracle::select(&case.problem, &case.inputs()).unwrap()).collect();
    everywhere::<f32>(|ctx, tier| {
        for (index, (case, expected)) in cases.iter().zip(&expected).enumerate() {
            let what = format!("{} {tier} {}", ctx.describe(), case.name);
            // Drawn cases compile their own kernels: a few cases, with the members of a GPU.
            let few = if case.name.starts_with("drawn") && index % 6 != 0 { 1 } else { 2 };
            for plan in plans_of(ctx, tier, case).into_iter().take(few) {
                let what = format!("{what} {}", plan.tiling());
                let got = Bound::new(ctx, &plan, case).run(ctx, 0);
                assert_lists_equal(&run_twins(&plan, case), expected, &format!("twins of {what}"));
                assert_lists_equal(&got, expected, &what);
                assert_invariants(&case.problem, case.seq_lens_kv.as_deref(), &got, &what);
            }
        }
    });
}

/// Integers between 2^23 and 2^23 + 256 differ in the last eight bits of an f32, the last digit of a top-k.
#[test]
fn scores_that_differ_in_their_last_bits() {
    let mut random = common::Random(9);
    let cases =
        integer_cases::<f32>().into_iter().filter(|case| ["HiP, prime length", "HiP, decode"].contains(&&*case.name));
    let cases: Vec<_> = cases
        .map(|mut case| {
            let dim = case.q.shape()[3] as usize;
            case.q.data_mut().chunks_exact_mut(dim).for_each(|row| {
                row.fill(0.0);
                row[0] = 1.0;
            });
            case.k.data_mut().chunks_exact_mut(dim).for_each(|row| row[0] = (8_388_608 + (random.bits() >> 56)) as f32);
            case
        })
        .collect();
    assert_eq!(cases.len(), 2);
    everywhere::<f32>(|ctx, tier| {
        for case in &cases {
            let expected = oracle::select(&case.problem, &case.inputs()).unwrap();
            for plan in plans_of(ctx, tier, case) {
                let what = format!("{} {tier} {} {}", ctx.describe(), case.name, plan.tiling());
                assert_lists_equal(&Bound::new(ctx, &plan, case).run(ctx, 0), &expected, &what);
            }
        }
    });
}

/// Other sizes of workgroups and passes give the same lists.
#[test]
fn tiny_workgroups() {
    everywhere::<f32>(|ctx, tier| {
        for case in integer_cases::<f32>().iter().filter(|case| case.problem.shape().head_dim == 16) {
            let expected = oracle::select(&case.problem, &case.inputs()).unwrap();
            for tiling in tilings(ctx.caps(), tier) {
                let plan = SelectionPlan::with_tiling(&case.problem, ctx.caps(), tier, tiling).unwrap();
                let what = format!("{} {tier} {tiling:?} {}", ctx.describe(), case.name);
                assert_lists_equal(&Bound::new(ctx, &plan, case).run(ctx, 0), &expected, &what);
            }
        }
    });
}

#[test]
fn half_precision_integers_exactly() {
    fn check<T: Element>() {
        let cases = integer_cases::<T>();
        everywhere::<T>(|ctx, tier| {
            // One case of each kind.
            for case in cases.iter().filter(|case| case.name.contains("prime") || case.name.contains("several")) {
                let expected = oracle::select(&case.problem, &case.inputs()).unwrap();
                let what = format!("{} {tier} {} {}", ctx.describe(), T::DTYPE, case.name);
                for plan in plans_of(ctx, tier, case) {
                    let what = format!("{what} {}", plan.tiling());
                    assert_lists_equal(&Bound::new(ctx, &plan, case).run(ctx, 0), &expected, &what);
                }
            }
        });
    }
    check::<f16>();
    check::<bf16>();
}

/// A NaN score counts as absent, on any device and tier; infinities rank as numbers. Where a device may or may not make a score NaN,
/// attention takes the lists, and they are the same on every run.
#[test]
fn what_nan_and_infinity_do_is_defined() {
    fn check<T: Element>() {
        let cases = spoiled_cases::<T>();
        let expected: Vec<HostBlockLists> =
            cases.iter().map(|case| oracle::select(&case.problem, &case.inputs()).unwrap()).collect();
        let undecided: Vec<_> = undecided_cases::<T>().into_iter().step_by(3).collect();
        everywhere::<T>(|ctx, tier| {
            for (case, expected) in cases.iter().zip(&expected) {
                let what = format!("{} {tier} {} {}", ctx.describe(), T::DTYPE, case.name);
                for plan in plans_of(ctx, tier, case) {
                    let what = format!("{what} {}", plan.tiling());
                    assert_lists_equal(&run_twins(&plan, case), expected, &format!("twins of {what}"));
                    assert_lists_equal(&Bound::new(ctx, &plan, case).run(ctx, 0), expected, &what);
                }
            }
            for case in &undecided {
                for plan in plans_of(ctx, tier, case) {
                    let what = format!("{} {tier} {} {} {}", ctx.describe(), T::DTYPE, case.name, plan.tiling());
                    let bound = Bound::new(ctx, &plan, case);
                    let got = bound.run(ctx, 0);
                    assert_invariants(&case.problem, case.seq_lens_kv.as_deref(), &got, &what);
                    assert_lists_equal(&bound.run(ctx, 0), &got, &what);
                }
            }
        });
    }
    check::<f32>();
    check::<f16>();
    check::<bf16>();
}

/// HiP: the groups at the beginning of each round, on the device, in the twin and in the oracle.
#[test]
fn every_round() {
    let cases: Vec<SelectCase> = integer_cases()
        .into_iter()
        .filter(|case| case.name.starts_with("HiP, prime") || case.name.contains("aligned, 22"))
        .collect();
    everywhere::<f32>(|ctx, tier| {
        for case in &cases {
            let (_, traces) = oracle::select_traced(&case.problem, &case.inputs()).unwrap();
            let SelectionMethod::Hip(hip) = *case.problem.method() else { panic!("{} is no HiP", case.name) };
            for (rounds, plan) in (0..traces[0].rounds.len() as u32)
                .flat_map(|rounds| plans_of(ctx, tier, case).into_iter().map(move |plan| (rounds, plan)))
            {
                let plan = plan.with_rounds(rounds);
                let what = format!("{} {tier} {} {} after {rounds} rounds", ctx.describe(), plan.tiling(), case.name);
                let got = Bound::new(ctx, &plan, case).run(ctx, 0);
                assert_eq!(got, run_twins(&plan, case), "{what}");
                for set in 0..2 {
                    // Rounds past the last one change nothing.
                    let of_set = &traces[set as usize].rounds;
                    let groups = &of_set[(rounds as usize).min(of_set.len() - 1)];
                    let begins: Vec<u32> =
                        groups.iter().map(|(first, _)| hip.sink_size + first * hip.block_size_k).collect();
                    assert_eq!(got.list(0, set, 0), begins, "{what}, set {set}");
                }
            }
        }
    });
}

/// InfiniteHiP: the chunks that survive each stage, on the device, in the twins and in the oracle.
#[test]
fn every_stage() {
    let cases: Vec<SelectCase> = integer_cases()
        .into_iter()
        .filter(|case| case.name.starts_with("InfiniteHiP") && case.problem.shape().head_dim == 16)
        .filter(|case| case.problem.num_stages() > 1 && !case.name.contains("dense"))
        .collect();
    everywhere::<f32>(|ctx, tier| {
        for case in &cases {
            for plan in plans_of(ctx, tier, case) {
                let bound = Bound::new(ctx, &plan, case);
                bound.run(ctx, 0);
                let cache = read_words(ctx, &bound.cache);
                let (_, stages) = twins::select_stages(&plan, &case.inputs()).unwrap();
                let (_, traces) = oracle::select_traced(&case.problem, &case.inputs()).unwrap();
                for (stage, survivors) in stages.iter().enumerate() {
                    for (list, survivors) in survivors.iter().enumerate() {
                        let what = format!("{} {tier} {} stage {stage} list {list}", ctx.describe(), case.name);
                        assert_eq!(&traces[list].survivors[stage], survivors, "twins of {what}");
                        // The last stage's chunks are the lists.
                        if stage + 1 < stages.len() {
                            assert_eq!(plan.survivors_in(&cache, stage, list), survivors, "{what}");
                        }
                    }
                }
            }
        }
    });
}

/// The scores of the last stage, which the scratch memory still holds, and the chunks kept by them.
#[test]
fn scores_are_the_twins() {
    let cases: Vec<SelectCase> = integer_cases()
        .into_iter()
        .filter(|case| case.name.starts_with("InfiniteHiP") && case.problem.shape().head_dim == 16)
        .filter(|case| !case.name.contains("dense"))
        .collect();
    everywhere::<f32>(|ctx, tier| {
        let mut num_compared = 0;
        for (case, plan) in
            cases.iter().flat_map(|case| plans_of(ctx, tier, case).into_iter().map(move |plan| (case, plan)))
        {
            let bound = Bound::new(ctx, &plan, case);
            let lists = bound.run(ctx, 0);
            let got = read_all::<f32>(ctx, &bound.scratch);
            let (_, stages) = twins::select_stages(&plan, &case.inputs()).unwrap();
            let last = stages.len() - 1;
            let none = twins::Survivors::new();
            let parents = if last == 0 { &none } else { &stages[last - 1] };
            let scored = twins::score_chunks(&plan, &case.inputs(), last, parents).unwrap();
            let max_chunks = got.len().min((plan.scratch_bytes() / 4) as usize) / scored.len();
            let what = format!("{} {tier} {}", ctx.describe(), case.name);
            let SelectionMethod::InfiniteHip(method) = case.problem.method() else { panic!("{what}") };
            let keep = method.stages[last].keep / method.stages[last].chunk_size;
            for (list, scored) in scored.iter().enumerate().filter(|(_, scored)| scored.len() > keep as usize) {
                num_compared += scored.len();
                let scores: Vec<f32> = scored.iter().map(|&(_, score)| score).collect();
                let room = plan.scores_in(&got, last, list);
                assert!(room.len() <= max_chunks, "{what}");
                assert_eq!(room[..scores.len()], scores, "{what} list {list}");
            }
            let kept: usize = twins::select_chunks(&plan, last, &scored).iter().map(Vec::len).sum();
            let listed: u32 = lists.block_counts().iter().sum();
            assert!(listed as usize <= kept, "{what}: {listed} of {kept}");
        }
        assert!(num_compared > 1000, "{num_compared} scores");
    });
}

#[test]
fn samples_are_the_twins() {
    let cases: Vec<SelectCase> = integer_cases().into_iter().filter(|case| case.name.contains("trailing")).collect();
    assert!(cases.len() >= 3);
    everywhere::<f32>(|ctx, tier| {
        for case in &cases {
            let plan = plan_of(ctx, tier, case);
            let bound = Bound::new(ctx, &plan, case);
            bound.run(ctx, 0);
            let got = read_all::<f32>(ctx, &bound.samples);
            let mut begin = 0;
            for samples in twins::sample_queries(&plan, &case.inputs()).unwrap() {
                assert_eq!(got[begin..begin + samples.len()], samples, "{} {tier} {}", ctx.describe(), case.name);
                begin += (samples.len() * 4).next_multiple_of(256) / 4;
            }
        }
    });
}

/// Floats: exact arithmetic allows every decision of the device.
#[test]
fn float_cases_within_rounding() {
    let cases = float_cases::<f32>();
    for ctx in contexts() {
        let tier = ctx.caps().best_tier();
        let select = |problem: &SelectionProblem, inputs: &SelectionInputs<'_>| {
            ctx.with_tier(tier).select(problem, inputs).wait()
        };
        let certified = certify_all(&select, &cases, &format!("{} {tier}", ctx.describe()));
        println!("{} {tier}: {certified:?}", ctx.describe());
    }
}

/// A decode loop with one bind: keys and lengths change on the device, and every step computes exactly the stages that are due. The CPU
/// path with its cache does the same.
#[test]
fn decode_steps_refresh_what_is_due() {
    let hip = common::select::HIP.with_refresh_interval(3);
    let methods: [SelectionMethod; 2] = [three_stages().into(), hip.into()];
    for method in methods {
        let problem = SelectionProblem::new(shape(2, [1, 300], [1, 2], 16), DType::F32, method);
        let mut case = SelectCase::<f32>::integers("decode", problem, 5).lens(&[220, 150]);
        let keys = case.k.clone();
        everywhere::<f32>(|ctx, tier| {
            let bound = Bound::new(ctx, plans_of(ctx, tier, &case).last().unwrap(), &case);
            let mut cache = wattn::cpu::StageCache::default();
            let mut expected = HostBlockLists::empty(bound.shape);
            for step in 0..14u64 {
                let lens = [220 + step as u32, 150 + 5 * step as u32];
                // Keys differ at each step, so that a stage that runs when it should not is noticed.
                case.k = keys.clone();
                case.k.data_mut().rotate_left(7 * step as usize);
                case.seq_lens_kv = Some(lens.to_vec());
                ctx.queue().write_buffer(&bound.k, 0, bytemuck::cast_slice(case.k.data()));
                ctx.queue().write_buffer(bound.lens.as_ref().unwrap(), 0, bytemuck::cast_slice(&lens));
                if let Some(stage) = case.problem.first_stage(step) {
                    expected = wattn::cpu::select_from(&case.problem, &case.inputs(), stage, &mut cache).unwrap();
                }
                let what = format!("{} {tier} step {step}", ctx.describe());
                assert_lists_equal(&bound.run(ctx, step), &expected, &what);
            }
        });
    }
}

/// The same bits on every run, and with bounds checks.
#[test]
fn the_same_lists_on_every_run() {
    for ctx in contexts() {
        let tier = ctx.caps().best_tier();
        for case in float_cases::<f32>().iter().take(8) {
            let select = |ctx: &Context| ctx.with_tier(tier).select(&case.problem, &case.inputs()).wait().unwrap();
            let expected = select(ctx);
            assert_eq!(select(ctx), expected, "{} {}", ctx.describe(), case.name);
            assert_eq!(select(&ctx.with_checked_shaders().unwrap()), expected, "{} {}", ctx.describe(), case.name);
        }
    }
}

/// A decode layer: at most nine dispatches with the two of attention where all stages run, no dispatch of selection where none runs.
#[test]
fn a_decode_layer_takes_few_dispatches() {
    for caps in [DeviceCaps::BASELINE].into_iter().chain(contexts().iter().map(|ctx| ctx.caps().clone())) {
        for method in [SelectionMethod::from(Preset::ThreeK), Preset::FiveK.into(), Hip::decode().into()] {
            let shape = wattn::AttentionShape { head_dim: 128, ..shape(1, [1, 1 << 20], [2, 4], 128) };
            let problem = SelectionProblem::new(shape, DType::F16, method);
            let plan = SelectionPlan::new(&problem, &caps).unwrap();
            let most = |step| (plan.num_dispatches(step), plan.dispatches().len());
            assert!(most(0).0 <= 7 && most(0).0 == most(0).1, "{plan}");
            assert_eq!(most(1).0, 0, "{plan}");
        }
    }
}
