//! Split decoding on every adapter: partial results against their twin, the merged result against the oracle, and key
//! lengths that change in a GPU buffer.

mod common;

use common::gpu::{
    Buffers, bind, buffer, check_twin, columns_tilings, contexts, partials, plan_of, problem_of, read_all, run, submit,
    tiers, tiny_tiling,
};
use common::{Case, Exp, MASKS, masks_for_lengths, shape};
use half::{bf16, f16};
use wattn::cpu::twins;
use wattn::{
    Attention, AttentionOutput, AttentionPlan, AttentionShape, Context, DType, LSE_EMPTY, Mask, Tier, Tiling, Workspace,
};

/// Small tiles with this many splits: lanes that take keys, and lanes that share the rows of keys.
fn split_tilings(ctx: &Context, tier: Tier, num_splits: u32) -> impl Iterator<Item = Tiling> {
    let columns = columns_tilings(ctx.caps(), tier).into_iter();
    [tiny_tiling(ctx.caps(), tier, 1)].into_iter().chain(columns).map(move |tiling| tiling.with_num_splits(num_splits))
}

#[test]
fn every_number_of_splits() {
    // One query and two with three heads each; 75 keys are more tiles than 3 splits and fewer than 64 of them.
    let cases = [Mask::Full, Mask::Causal, Mask::Window { left: Some(30), right: Some(0) }]
        .map(|mask| [[1, 75], [2, 17], [2, 1]].map(|lengths| Case::<f32>::random(shape(2, lengths, [2, 3]), mask, 1)));
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F32]) {
            for tiling in [2, 3, 7, 64, 4096].into_iter().flat_map(|num_splits| split_tilings(ctx, tier, num_splits)) {
                for case in cases.iter().flatten() {
                    let plan = plan_of(case, ctx, tier, tiling);
                    let what = format!("{} {tier} {tiling} {case:?}", ctx.describe());
                    let got = run(ctx, &plan, case);
                    case.check_with(&got, Exp::of(&plan), &what);
                }
            }
        }
    }
}

/// The kernel's partial results in the workspace equal those of `twins::attend_decode`, empty splits included.
#[test]
fn partial_results_are_the_twins() {
    for (seed, mask) in (1..).zip(MASKS) {
        let case = Case::<f32>::random(shape(2, [2, 75], [2, 2]), mask, seed);
        for ctx in contexts() {
            let of_tier = |tier| split_tilings(ctx, tier, 41).map(move |tiling| (tier, tiling));
            for (tier, tiling) in tiers(ctx.caps(), &[DType::F32]).into_iter().flat_map(of_tier) {
                let plan = plan_of(&case, ctx, tier, tiling);
                let buffers = Buffers::new(ctx, &case, plan.problem());
                let memory = buffer(ctx, &vec![7.0f32; (plan.workspace_bytes() / 4) as usize]);
                let workspace = Workspace::from_buffer(memory.clone()).unwrap();
                let attention = Attention::prepare(ctx, &plan).unwrap();
                let bound = attention.bind_with(buffers.args(), &workspace).unwrap();
                submit(ctx, |encoder| bound.encode(encoder));
                let found = read_all::<f32>(ctx, &memory);
                let twin = twins::attend_decode(&plan, &case.inputs()).unwrap();
                let (out, lse) = partials(&plan, &found);
                let what = format!("{} {tier} {tiling} {case:?}", ctx.describe());
                check_twin(tier, (out, &lse), (&twin.out, &twin.lse), &what);
                assert!(twin.lse.contains(&LSE_EMPTY), "{what}: more splits than tiles leave some empty");
            }
        }
    }
}

/// Rows that begin at multiples of 16 bytes are read two vec4 at a time: the same numbers in the same order, so the same bits.
#[test]
fn aligned_rows_change_no_bit() {
    fn check<T: wattn::Element>(seed: u64) {
        for widths in [[16, 16], [24, 40]] {
            let shape = AttentionShape { head_dim: widths[0], head_dim_v: widths[1], ..shape(2, [2, 75], [2, 2]) };
            let case = Case::<T>::random(shape, Mask::Causal, seed);
            for ctx in contexts() {
                for tier in tiers(ctx.caps(), &[T::DTYPE]).into_iter().filter(|tier| !tier.matrix()) {
                    for tiling in columns_tilings(ctx.caps(), tier) {
                        let problem = problem_of(&case, DType::F32);
                        let plan = |problem| AttentionPlan::with_tiling(problem, ctx.caps(), tier, tiling).unwrap();
                        let (plain, aligned) = (plan(&problem), plan(&problem.clone().with_aligned_rows()));
                        assert!(aligned.to_string().contains("chunk_pair"), "{aligned}");
                        let (plain, aligned) = (run(ctx, &plain, &case), run(ctx, &aligned, &case));
                        let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        let what = format!("{} {tier} {tiling} {case:?}", ctx.describe());
                        assert_eq!(bits(plain.out.data()), bits(aligned.out.data()), "{what}");
                        assert_eq!(bits(plain.lse.data()), bits(aligned.lse.data()), "{what}");
                        case.check_with(&aligned, Exp::Gpu(tiling.tile_kv()), &what);
                    }
                }
            }
        }
    }
    check::<f16>(5);
    check::<bf16>(6);
}

/// A decode loop: one plan, one bind, and lengths that grow and shrink on the GPU between encodes. Keys past a length
/// are NaN, so that reading one shows; a length past `seq_len_kv` counts as `seq_len_kv`.
#[test]
fn lengths_change_without_a_new_bind() {
    let seq_len_kv = 53;
    for mask in [Mask::Full, Mask::Causal, Mask::Window { left: Some(9), right: Some(0) }] {
        let mut case = Case::<f32>::random(shape(2, [1, seq_len_kv], [2, 2]), mask, 3);
        case.seq_lens_kv = Some(vec![0, 0]);
        for ctx in contexts() {
            for tier in tiers(ctx.caps(), &[DType::F32]) {
                for tiling in [1, 3].into_iter().flat_map(|num_splits| split_tilings(ctx, tier, num_splits)) {
                    let problem = problem_of(&case, DType::F32);
                    let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), tier, tiling).unwrap();
                    let buffers = Buffers::new(ctx, &case, &problem);
                    let bound = bind(ctx, &plan, buffers.args());
                    for lens in [[1, 0], [16, 53], [17, 52], [53, 33], [2, 31], [u32::MAX, 54]] {
                        let clamped = lens.map(|len| len.min(seq_len_kv));
                        let (k, v) = (past_is_nan(case.k.data(), clamped), past_is_nan(case.v.data(), clamped));
                        ctx.queue().write_buffer(&buffers.k, 0, bytemuck::cast_slice(&k));
                        ctx.queue().write_buffer(&buffers.v, 0, bytemuck::cast_slice(&v));
                        let on_gpu = buffers.seq_lens_kv.as_ref().unwrap();
                        ctx.queue().write_buffer(on_gpu, 0, bytemuck::cast_slice(&lens));
                        submit(ctx, |encoder| bound.encode(encoder));
                        let (out, lse) = buffers.read(ctx);
                        let expected = Case { seq_lens_kv: Some(clamped.to_vec()), ..case.clone() };
                        let what = format!("{} {tier} {tiling} {mask} {lens:?}", ctx.describe());
                        expected.check_with(&AttentionOutput::new(out, lse), Exp::of(&plan), &what);
                    }
                }
            }
        }
    }
}

/// NaN from each sequence's length on.
fn past_is_nan(data: &[f32], lens: [u32; 2]) -> Vec<f32> {
    let (sequence, token) = (data.len() / 2, 2 * 16);
    let bad = |i: usize| i % sequence / token >= lens[i / sequence] as usize;
    data.iter().enumerate().map(|(i, &x)| if bad(i) { f32::NAN } else { x }).collect()
}

/// Many queries, each sequence with a length of its own, in prefill and in splits.
#[test]
fn prefill_with_lengths_on_the_gpu() {
    for mask in masks_for_lengths() {
        let mut case = Case::<f32>::random(shape(2, [11, 53], [2, 2]), mask, 4);
        let lens = [33, 8];
        case.seq_lens_kv = Some(lens.to_vec());
        let (k, v) = (past_is_nan(case.k.data(), lens), past_is_nan(case.v.data(), lens));
        case.k.data_mut().copy_from_slice(&k);
        case.v.data_mut().copy_from_slice(&v);
        for ctx in contexts() {
            for tier in tiers(ctx.caps(), &[DType::F32]) {
                for tiling in [1, 3].into_iter().flat_map(|num_splits| split_tilings(ctx, tier, num_splits)) {
                    let plan = plan_of(&case, ctx, tier, tiling);
                    let what = format!("{} {tier} {tiling} {case:?}", ctx.describe());
                    case.check_with(&run(ctx, &plan, &case), Exp::of(&plan), &what);
                }
            }
        }
    }
}
