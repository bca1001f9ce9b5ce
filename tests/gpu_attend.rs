//! Attention on every adapter, in every tier, against the f64 oracle.

mod common;

use common::gpu::{contexts, plans, tiers};
use common::{Case, Exp, MASKS, shape};
use half::{bf16, f16};
use wattn::{AttentionOutput, AttentionPlan, AttentionShape, Context, DType, Element, Mask};

/// Runs a case with one plan. Its problem asks for what a one-shot call gives.
fn run<T: Element>(ctx: &Context, plan: &AttentionPlan, case: &Case<T>) -> AttentionOutput {
    pollster::block_on(ctx.attend_planned(plan, &case.inputs())).unwrap()
}

/// Runs a case on every adapter, in every tier, with every tiling, and checks every element.
fn check_everywhere<T: Element>(case: &Case<T>) {
    let mut problem = case.problem().out_dtype(DType::F32).with_lse();
    if case.seq_lens_kv.is_some() {
        problem = problem.with_seq_lens_kv();
    }
    for ctx in contexts() {
        for tier in tiers(ctx.caps()) {
            for plan in plans(&problem, ctx.caps(), tier) {
                let what = format!("{} {tier} {:?} {case:?}", ctx.describe(), plan.tiling());
                let got = run(ctx, &plan, case);
                case.check_against_naive_with(&got, Exp::Gpu(plan.tiling().tile_kv()), &what);
            }
        }
    }
}

/// Around the tiles of 16 and 32 keys and rows; 0 and 1; a prime. Queries beyond keys leave rows that see nothing.
#[test]
fn lengths_at_every_border() {
    let lengths = [[1, 0], [1, 1], [1, 31], [2, 32], [5, 33], [7, 3], [31, 31], [32, 33], [33, 32], [37, 65], [3, 127]];
    for (seed, lengths) in (1..).zip(lengths) {
        for mask in [Mask::Full, Mask::Causal] {
            check_everywhere(&Case::<f32>::random(shape(1, lengths, [1, 2]), mask, seed));
        }
    }
}

#[test]
fn every_mask() {
    for (seed, mask) in (1..).zip(MASKS) {
        check_everywhere(&Case::<f32>::random(shape(2, [21, 29], [2, 2]), mask, seed));
    }
}

#[test]
fn every_group_size() {
    for (seed, group) in (1..).zip([1, 2, 3, 5, 8, 16]) {
        check_everywhere(&Case::<f32>::painted(shape(1, [3, 40], [2, group]), Mask::Causal));
        check_everywhere(&Case::<f32>::random(shape(1, [1, 70], [1, group]), Mask::Causal, seed));
    }
}

/// Widths that fill no lane, some, all, and several times; different ones for keys and values.
#[test]
fn every_kind_of_width() {
    for (seed, [head_dim, head_dim_v]) in (1..).zip([[4, 4], [8, 4], [12, 36], [64, 20], [20, 64], [128, 128], [256, 256], [4, 252]]) {
        let shape = AttentionShape { head_dim, head_dim_v, ..shape(1, [9, 35], [1, 2]) };
        check_everywhere(&Case::<f32>::random(shape, Mask::Causal, seed));
    }
}

#[test]
fn every_dtype() {
    let shape = AttentionShape { head_dim: 40, head_dim_v: 24, ..shape(2, [11, 45], [2, 3]) };
    check_everywhere(&Case::<f16>::random(shape, Mask::Causal, 1));
    check_everywhere(&Case::<bf16>::random(shape, Mask::Causal, 2));
    check_everywhere(&Case::<f16>::painted(shape, Mask::Full));
    check_everywhere(&Case::<bf16>::painted(shape, Mask::Full));
}
