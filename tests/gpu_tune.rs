//! Tuning on every device: the winner is right and is used, and a candidate broken on purpose never wins.

mod common;

use common::gpu::contexts;
use common::random;
use wattn::tune::{self, DeviceKey, Options, Outcome, TuneError, TuningTable};
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, Context, DType, Error, Hip, HostInputs, Mask, Preset,
    SelectionProblem, SelectionTiling, Tiling, cpu,
};

const SHAPE: AttentionShape = AttentionShape {
    batch_size: 2,
    seq_len_q: 40,
    seq_len_kv: 150,
    num_q_heads: 4,
    num_kv_heads: 2,
    head_dim: 16,
    head_dim_v: 16,
};

/// Few candidates, the plan without tuning among them, and no time for them: clocks are not tested here, and software drivers compile for
/// seconds.
fn options(most: usize) -> Options {
    Options::default().with_seconds(0.0).with_most_candidates(most)
}

/// Dense, decoding with lengths, and in blocks.
fn problems() -> [AttentionProblem; 3] {
    let hip = SelectionProblem::new(SHAPE, DType::F32, Hip::default().with_top_k(64).with_block_size_q(16));
    [
        AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::Causal),
        AttentionProblem::new(AttentionShape { seq_len_q: 1, ..SHAPE }, DType::F16).with_seq_lens_kv(),
        AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::Causal).with_blocks(hip.blocks()),
    ]
}

fn selections() -> [SelectionProblem; 2] {
    let shape = AttentionShape { seq_len_q: 20, seq_len_kv: 1500, ..SHAPE };
    let hip = Hip::default().with_top_k(64).with_block_size_q(16);
    [
        SelectionProblem::new(shape, DType::F32, hip),
        SelectionProblem::new(AttentionShape { batch_size: 1, ..shape }, DType::F16, Preset::Debug).with_seq_lens_kv(),
    ]
}

fn assert_right<T: core::fmt::Debug>(ctx: &Context, trials: &[tune::Trial<T>]) {
    assert!(!trials.is_empty());
    for trial in trials {
        let right = matches!(trial.outcome, Outcome::Timed { .. } | Outcome::Slow { .. });
        assert!(right, "{}: {trial:?}", ctx.describe());
    }
}

#[test]
fn what_wins_is_right_and_is_taken() {
    for ctx in contexts() {
        let (mut table, key) = (TuningTable::new(), DeviceKey::of(ctx));
        let mut most = [3, 2, 2].into_iter();
        let tuned = problems().map(|problem| {
            let tuned = tune::attention(ctx, &problem, &options(most.next().unwrap())).unwrap();
            assert_right(ctx, &tuned.trials);
            assert!(tuned.entry.seconds <= tuned.entry.untuned_seconds && tuned.entry.speedup() >= 1.0);
            table.set_attention(&key, tuned.entry.clone());
            (problem, tuned.entry)
        });
        let with = ctx.with_tuning(table.tuning(&key));
        for (problem, entry) in tuned {
            let plan = AttentionPlan::new(&problem, with.caps()).unwrap();
            assert!(plan.is_tuned());
            assert_eq!((plan.tier(), plan.tiling()), (entry.candidate.tier, entry.candidate.tiling));
        }
        // One-shot calls take the winner too, and are right.
        let [q, k, v] = [random::<f32>(SHAPE.q(), 1), random(SHAPE.k(), 2), random(SHAPE.v(), 3)];
        let inputs = HostInputs::new(&q, &k, &v);
        let [problem, ..] = problems();
        let got = with.attend(&problem, &inputs).wait().unwrap();
        let expected = cpu::oracle::attend(&problem, &inputs).unwrap();
        for (got, expected) in got.out.data().iter().zip(expected.out.data()) {
            // Ten times the error seen at 150 keys; other tests hold results to the exact bound.
            assert!((got - expected).abs() < 5e-6, "{got} {expected}");
        }
    }
}

#[test]
fn a_kernel_that_is_broken_never_wins() {
    for ctx in contexts() {
        let [problem, ..] = problems();
        // Scores of the first four columns only: a faster, wrong kernel.
        let tuned = tune::attention(ctx, &problem, &options(3).with_sabotage("HEAD_DIM4", 1)).unwrap();
        assert_eq!((tuned.trials.len(), tuned.vetoed().count()), (2, 2), "{:?}", tuned.trials);
        let untuned = AttentionPlan::new(&problem, ctx.caps()).unwrap();
        assert_eq!((tuned.entry.candidate.tier, tuned.entry.candidate.tiling), (untuned.tier(), untuned.tiling()));
    }
}

#[test]
fn selections_are_tuned_by_the_same_rules() {
    for ctx in contexts() {
        for problem in selections() {
            let tuned = tune::selection(ctx, &problem, &options(3)).unwrap();
            assert_right::<SelectionTiling>(ctx, &tuned.trials);
            let tuned = tune::selection(ctx, &problem, &options(2).with_sabotage("HEAD_DIM4", 1)).unwrap();
            assert_eq!((tuned.trials.len(), tuned.vetoed().count()), (1, 1), "{:?}", tuned.trials);
        }
    }
}

#[test]
fn without_time_the_plan_stays_and_says_what_was_not_tried() {
    let ctx = &contexts()[0];
    let [problem, ..] = problems();
    let tuned = tune::attention(ctx, &problem, &options(64).with_most_seconds(0.0)).unwrap();
    let untuned = AttentionPlan::new(&problem, ctx.caps()).unwrap();
    assert!(tuned.trials.is_empty() && tuned.entry.left_out > 0, "{tuned:?}");
    assert_eq!(tuned.entry.candidate.tiling, untuned.tiling());
    assert!(tuned.entry.seconds > 0.0 && tuned.entry.seconds == tuned.entry.untuned_seconds);
    let [hip, ..] = selections();
    let tuned = tune::selection(ctx, &hip, &options(64).with_most_seconds(0.0)).unwrap();
    assert!(tuned.trials.is_empty() && tuned.entry.left_out > 0, "{tuned:?}");
}

#[test]
fn there_must_be_something_to_measure() {
    let ctx = &contexts()[0];
    for (field, shape) in [
        ("batch_size", AttentionShape { batch_size: 0, ..SHAPE }),
        ("seq_len_q", AttentionShape { seq_len_q: 0, ..SHAPE }),
        ("seq_len_kv", AttentionShape { seq_len_kv: 0, ..SHAPE }),
    ] {
        let dense = tune::attention(ctx, &AttentionProblem::new(shape, DType::F32), &options(1)).map(|_| ());
        let hip = SelectionProblem::new(shape, DType::F32, Hip::default());
        let selection = tune::selection(ctx, &hip, &options(1)).map(|_| ());
        for error in [dense.unwrap_err(), selection.unwrap_err()] {
            let named = matches!(&error, TuneError::Library(Error::Invalid { field: of, .. }) if *of == field);
            assert!(named, "{error}");
        }
    }
}

#[test]
fn nothing_is_tried_that_is_to_be_avoided() {
    let ctx = &contexts()[0];
    let [problem, ..] = problems();
    let first = tune::attention(ctx, &problem, &options(2)).unwrap();
    let avoided: Vec<tune::Candidate<Tiling>> = first.trials.iter().map(|trial| trial.candidate).collect();
    let options = avoided.iter().fold(options(2), |options, candidate| options.with_avoid(candidate.to_string()));
    let second = tune::attention(ctx, &problem, &options).unwrap();
    assert!(second.trials.iter().all(|trial| !avoided.contains(&trial.candidate)), "{:?}", second.trials);
}
