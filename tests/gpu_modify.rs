//! Modifiers of scores on every adapter, in every tier and tiling, against the oracle and the twins.

mod common;

use common::gpu::{Buffers, bind, bits, buffer, contexts, submit, tiers, tilings, tiny_tiling};
use common::modified::{CHAINS, ModifiedCase, Tensor, check_hidden_nan, check_on, hidden_nan};
use common::{Case, MASKS, shape};
use half::{bf16, f16};
use wattn::{Attention, AttentionOutput, AttentionPlan, Context, DType, Element, Layout, Mask, TensorView};

/// Each chain in every tier; each tiling of a tier takes some of them, and each its own mask, lengths and group.
#[test]
fn every_chain_in_every_tiling() {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F32]) {
            for (at, tiling) in tilings(ctx.caps(), tier).into_iter().enumerate() {
                for (number, chain) in CHAINS.into_iter().enumerate().filter(|(number, _)| (number + at) % 4 == 0) {
                    let mask = MASKS[(at + 3 * number) % MASKS.len()];
                    let sizes = [[1, 33], [13, 70]][(at + number / 4) % 2];
                    let case = Case::<f32>::random(shape(3, sizes, [2, 1 + at as u32 % 3]), mask, number as u64);
                    check_on(ctx, &ModifiedCase::new(case, chain), tier, tiling);
                }
            }
        }
    }
}

#[test]
fn every_dtype() {
    fn of<T: Element>(ctx: &Context) {
        for tier in tiers(ctx.caps(), &[T::DTYPE]) {
            for chain in ["softcap, bias, alibi", "alibi, mask, softcap, shared bias"] {
                let mut case = Case::<T>::random(shape(3, [9, 40], [1, 2]), Mask::Causal, 5);
                case.seq_lens_kv = Some(vec![40, 11, 0]);
                check_on(ctx, &ModifiedCase::new(case, chain), tier, tiny_tiling(ctx.caps(), tier, 2));
            }
        }
    }
    for ctx in contexts() {
        of::<f32>(ctx);
        of::<f16>(ctx);
        of::<bf16>(ctx);
    }
}

/// Each chain over lists, in the tilings by turns.
#[test]
fn every_chain_over_lists() {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F32]) {
            let tilings = tilings(ctx.caps(), tier);
            for (number, chain) in CHAINS.into_iter().enumerate() {
                let tiling = tilings[number % tilings.len()];
                let case = Case::<f32>::random(shape(3, [13, 70], [2, 2]), Mask::Causal, number as u64);
                check_on(ctx, &ModifiedCase::with_lists(case, chain), tier, tiling);
            }
        }
    }
}

/// The value of a hidden key stays out, that of a seen one comes in, whatever it is.
#[test]
fn values_of_hidden_keys_stay_out() {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F32]) {
            for tiling in tilings(ctx.caps(), tier).into_iter().step_by(2) {
                let case = hidden_nan::<f32>();
                let plan = AttentionPlan::with_tiling(&case.problem().with_lse(), ctx.caps(), tier, tiling).unwrap();
                let got = case.with_inputs(|inputs| ctx.attend_planned(&plan, inputs).wait()).unwrap();
                check_hidden_nan(&got, &format!("{} {tier} {tiling:?}", ctx.describe()));
            }
        }
    }
}

/// Strides and offsets of any number of elements, in a buffer that holds more.
#[test]
fn strided_biases() {
    for ctx in contexts() {
        let case = Case::<f32>::random(shape(2, [5, 21], [1, 2]), Mask::Full, 4);
        let case = ModifiedCase::new(case, "bias");
        let problem = case.problem().with_lse();
        let plan = AttentionPlan::new(&problem, ctx.caps()).unwrap();
        let expected = case.with_inputs(|inputs| ctx.attend_planned(&plan, inputs).wait()).unwrap();
        let Tensor::F32(bias) = &case.tensors[0].1 else { panic!("{:?}", case.tensors) };
        // Keys contiguous, heads outermost, 3 elements between queries, 7 in front.
        let (query, batch, head) = (24, 24 * 5, 24 * 5 * 2);
        let mut spread = vec![f32::NAN; 7 + 2 * head];
        for (at, number) in bias.data().iter().enumerate() {
            let [b, h, q, k] = [at / 210, at / 105 % 2, at / 21 % 5, at % 21];
            spread[7 + b * batch + h * head + q * query + k] = *number;
        }
        let buffers = Buffers::new(ctx, &case.case, &problem);
        let buffer = buffer(ctx, &spread);
        let layout = Layout { shape: [2, 2, 5, 21], strides: [batch, head, query].map(|n| n as u64), offset: 7 };
        let view = TensorView::new(&buffer, DType::F32, layout);
        let bound = bind(ctx, &plan, buffers.args().with_tensor("bias", view));
        submit(ctx, |encoder| bound.encode(encoder));
        let (out, lse) = buffers.read::<f32>(ctx);
        assert_eq!(bits(&AttentionOutput::new(out, lse)), bits(&expected), "{}", ctx.describe());
    }
}

/// What the device has less of than the chain needs, and what is bound wrongly, is named.
#[test]
fn what_is_wrong_is_named() {
    let ctx = &contexts()[0];
    let case = ModifiedCase::new(Case::<f32>::random(shape(1, [2, 9], [1, 1]), Mask::Full, 4), "bias");
    let plan = AttentionPlan::new(&case.problem().with_lse(), ctx.caps()).unwrap();
    let buffers = Buffers::new(ctx, &case.case, plan.problem());
    let (bias, short) = (buffer(ctx, &[0.0f32; 18]), buffer(ctx, &[0.0f32; 17]));
    let view = |buffer| TensorView::new(buffer, DType::F32, Layout::seq_major(1, 1, 2, 9));
    let attention = Attention::prepare(ctx, &plan).unwrap();
    let refused = |args| attention.bind(args).unwrap_err().to_string();
    attention.bind(buffers.args().with_tensor("bias", view(&bias))).unwrap();
    assert_eq!(refused(buffers.args()), "`bias`: is required by the problem");
    assert_eq!(refused(buffers.args().with_tensor("bais", view(&bias))), "`bias`: is required by the problem");
    let both = buffers.args().with_tensor("bias", view(&bias)).with_tensor("other", view(&bias));
    assert_eq!(refused(both), "the problem has no tensor `other`");
    let twice = buffers.args().with_tensor("bias", view(&bias)).with_tensor("bias", view(&bias));
    assert_eq!(refused(twice), "`bias`: is given twice");
    assert_eq!(refused(buffers.args().with_tensor("bias", view(&short))), "`bias` ends at byte 72, its buffer has 68");
    let written = buffers.args().with_tensor("bias", view(&buffers.out));
    assert!(refused(written).contains("`out` shares a buffer with `bias`"));

    let mut caps = ctx.caps().clone();
    caps.max_storage_buffers = 4;
    let error = AttentionPlan::new(&case.problem(), &caps).unwrap_err().to_string();
    assert!(error.contains("max_storage_buffers_per_shader_stage (modifiers of scores)"), "{error}");
}
