//! Block-sparse attention on every adapter, in every tier, against the f64 oracle and the kernels' twins.

mod common;

use common::golden;
use common::gpu::{check_twin, contexts, problem_of, tiers, tilings, tiny_tiling};
use common::selected::{SelectedCase, broken_lists, callers_cases};
use common::{Case, Exp, shape};
use half::f16;
use wattn::cpu::twins;
use wattn::{
    AttentionOutput, AttentionPlan, AttentionShape, BlockListSpec, BlockListsView, Context, DType, Element, Error,
    Granularity, HostBlockLists, HostTensor, Mask, MergeProblem, Tier, Tiling, U32View,
};

fn plan_of<T: Element>(case: &SelectedCase<T>, ctx: &Context, tier: Tier, tiling: Tiling) -> AttentionPlan {
    let problem = problem_of(&case.case, DType::F32).with_blocks(case.selection);
    AttentionPlan::with_tiling(&problem, ctx.caps(), tier, tiling).unwrap()
}

fn run<T: Element>(ctx: &Context, plan: &AttentionPlan, case: &SelectedCase<T>) -> AttentionOutput {
    pollster::block_on(ctx.attend_planned(plan, &case.case.inputs().with_blocks(&case.blocks))).unwrap()
}

fn run_twins<T: Element>(plan: &AttentionPlan, case: &SelectedCase<T>) -> AttentionOutput {
    let (shape, num_parts) = (&case.case.shape, plan.tiling().num_splits);
    if num_parts == 1 {
        return twins::attend_prefill(plan, &case.case.inputs().with_blocks(&case.blocks)).unwrap();
    }
    let partials = twins::attend_decode(plan, &case.case.inputs().with_blocks(&case.blocks)).unwrap();
    let num_rows = shape.batch_size * shape.seq_len_q * shape.num_q_heads;
    let problem = MergeProblem { num_parts, num_rows, head_dim_v: shape.head_dim_v };
    let (out, lse) = twins::merge_splits(&problem, &partials.out, &partials.lse).unwrap();
    let tensor = |shape, data| HostTensor::new(shape, data).unwrap();
    AttentionOutput::new(tensor(shape.out(), out), tensor(shape.lse(), lse))
}

fn check<T: Element>(ctx: &Context, tier: Tier, tiling: Tiling, case: &SelectedCase<T>) {
    let plan = plan_of(case, ctx, tier, tiling);
    let got = run(ctx, &plan, case);
    case.check(&got, Exp::of(&plan));
    let twin = run_twins(&plan, case);
    let what = format!("{} {tier} {tiling:?} {}", ctx.describe(), case.name);
    check_twin(tier, (got.out.data(), got.lse.data()), (twin.out.data(), twin.lse.data()), &what);
}

/// Every block size compiles to its own shader: the best tier takes all cases, other tiers a few.
#[test]
fn callers_lists() {
    let cases = callers_cases::<f32>();
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F32]) {
            for (index, case) in cases.iter().enumerate() {
                if tier == ctx.caps().best_tier() || (case.selection.block_size == 8 && index % 2 == 0) {
                    for tiling in tilings(ctx.caps(), tier) {
                        check(ctx, tier, tiling, case);
                    }
                }
            }
        }
    }
}

#[test]
fn half_precision() {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F16]) {
            for case in callers_cases::<f16>().iter().filter(|case| case.selection.block_size == 16) {
                check(ctx, tier, tiny_tiling(ctx.caps(), tier, 1), case);
            }
        }
    }
}

/// Attention of the golden vectors: out, lse, captured mass.
#[test]
fn the_golden_vectors() {
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F32]) {
            for golden in golden::all().iter().filter(|golden| !golden.rows.is_empty()) {
                let blocks = ctx.with_tier(tier).select(&golden.problem, &golden.selection_inputs()).wait().unwrap();
                let got = ctx
                    .with_tier(tier)
                    .attend(&golden.attention(), &golden.inputs().with_blocks(&blocks))
                    .wait()
                    .unwrap();
                for row in &golden.rows {
                    let what = format!("{} {tier} {} head {}", ctx.describe(), golden.name, row.q_head);
                    let at = (0, golden.q_index() as usize, row.q_head as usize);
                    let lse = f64::from(got.lse.row(at.0, at.1, at.2)[0]);
                    assert!((lse - row.lse).abs() < 5e-6, "{what}: lse {lse}, expected {}", row.lse);
                    for (x, expected) in got.out.row(at.0, at.1, at.2).iter().zip(row.out.iter().flatten()) {
                        assert!((f64::from(*x) - expected).abs() < 5e-6, "{what}: {x}, expected {expected}");
                    }
                    if let Some((dense, mass)) = row.dense {
                        assert!(((lse - dense).exp() - mass).abs() < 1e-5, "{what}: mass {}", (lse - dense).exp());
                    }
                }
            }
        }
    }
}

/// A NaN or an infinity in one key or value, listed, sink or near: it shows in the rows that attend to it, and all other rows have the bits
/// of a clean run.
#[test]
fn bad_values_reach_the_rows_that_attend_to_them() {
    fn check_dtype<T: Element>(step: usize) {
        let cases: Vec<_> =
            callers_cases::<T>().into_iter().filter(|case| case.selection.block_size == 16).step_by(step).collect();
        for ctx in contexts() {
            for tier in tiers(ctx.caps(), &[T::DTYPE]) {
                for clean in &cases {
                    check_case(ctx, &plan_of(clean, ctx, tier, tiny_tiling(ctx.caps(), tier, 2)), clean);
                }
            }
        }
    }
    check_dtype::<f32>(2);
    check_dtype::<f16>(5);
}

fn check_case<T: Element>(ctx: &Context, plan: &AttentionPlan, clean: &SelectedCase<T>) {
    let expected = run(ctx, plan, clean);
    let len = clean.case.inputs().seq_len_kv(0);
    for (key, which, bad) in
        [(len / 3, 0, f32::NAN), (len / 3, 1, f32::NAN), (len - 1, 0, f32::NAN), (0, 1, f32::INFINITY)]
    {
        let mut dirty = clean.clone();
        let tensor = if which == 0 { &mut dirty.case.k } else { &mut dirty.case.v };
        let [_, _, heads, dim] = tensor.shape().map(|n| n as usize);
        // Batch 0, head 1, element 2.
        tensor.data_mut()[(key as usize * heads + 1) * dim + 2] = T::from_f32(bad);
        let got = run(ctx, plan, &dirty);
        for row in common::rows(&clean.case.shape) {
            let [b, q, h] = row.map(|n| n as usize);
            let (out, lse) = (got.out.row(b, q, h), got.lse.row(b, q, h)[0]);
            let clean_out = expected.out.row(b, q, h);
            let same = |x: &f32, y: &f32| x.to_bits() == y.to_bits();
            let reached = b == 0 && clean.case.kv_head(row) == 1 && clean.keys(row).contains(&key);
            let right = match (reached, which) {
                (false, _) => out.iter().zip(clean_out).all(|(x, y)| same(x, y)),
                (true, 0) => lse.is_nan() && out.iter().all(|x| x.is_nan()),
                (true, _) if bad.is_nan() => out[2].is_nan() && same(&out[1], &clean_out[1]),
                (true, _) => !out[2].is_finite() && same(&out[1], &clean_out[1]),
            };
            let what = format!("{} {} {bad} in {} of key {key}", ctx.describe(), plan.tier(), ["k", "v"][which]);
            assert!(right, "{what}, {row:?}: {}: {lse} {out:?}, clean {clean_out:?}", clean.name);
        }
    }
}

/// All blocks listed: dense causal attention. The lists go past the window and the sinks, which must not count twice.
#[test]
fn keeping_everything_is_dense_attention() {
    let case = Case::<f32>::random(AttentionShape { head_dim: 20, ..shape(2, [37, 101], [2, 2]) }, Mask::Causal, 1);
    for granularity in Granularity::ALL {
        let selection =
            BlockListSpec::new(16, 4, 26).with_granularity(granularity).with_sink_size(8).with_window_size(12);
        let mut blocks = HostBlockLists::empty(selection.indices_shape(&case.shape));
        let all: Vec<u32> = (0..101).step_by(4).collect();
        for [b, s, m] in common::selected::lists(&blocks) {
            blocks.set_list(b, s, m, &all);
        }
        for ctx in contexts() {
            for tier in tiers(ctx.caps(), &[DType::F32]) {
                let problem = case.problem().with_blocks(selection);
                let got = ctx.with_tier(tier).attend(&problem, &case.inputs().with_blocks(&blocks)).wait().unwrap();
                let what = format!("{} {tier} {granularity}", ctx.describe());
                // No tile is smaller.
                case.check_with(&got, Exp::Gpu(16), &what);
            }
        }
    }
}

/// Lists that break a rule are found on the device, with the same names as on the host.
#[test]
fn broken_lists_are_found_on_the_device() {
    let shape = shape(2, [3, 40], [1, 2]);
    let selection = BlockListSpec::new(2, 8, 4).with_window_size(8);
    let problem = wattn::AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal).with_blocks(selection);
    let lists = selection.num_lists(&shape) as u32;
    let mut cases: Vec<(String, HostBlockLists)> =
        vec![("none".to_owned(), HostBlockLists::empty(selection.indices_shape(&shape)))];
    for (name, count, entries) in broken_lists() {
        for list in [0, lists - 1] {
            let mut indices = vec![wattn::PADDING; (lists * 4) as usize];
            let mut counts = vec![0; lists as usize];
            counts[list as usize] = count;
            indices[(list * 4) as usize..][..4].copy_from_slice(&entries);
            let blocks = HostBlockLists::new(selection.indices_shape(&shape), indices, counts).unwrap();
            cases.push((format!("{name} in list {list}"), blocks));
        }
    }
    for lens in [None, Some([40u32, 17])] {
        for ctx in contexts() {
            let on_gpu = lens.map(|lens| common::gpu::buffer(ctx, &lens));
            for (name, blocks) in &cases {
                let what = format!("{} {name} {lens:?}", ctx.describe());
                let expected = blocks.validate(&selection, &shape, lens.as_ref().map(|lens| &lens[..]));
                let twin = twins::check_blocks(&selection, blocks, &lens.unwrap_or([40; 2]));
                assert_eq!(twin.is_some(), expected.is_err(), "{what}");
                let (indices, counts) =
                    (common::gpu::buffer(ctx, blocks.block_indices()), common::gpu::buffer(ctx, blocks.block_counts()));
                let view = BlockListsView::new(
                    U32View::new(&indices, 0, (lists * 4).into()),
                    U32View::new(&counts, 0, lists.into()),
                );
                let on_gpu = on_gpu.as_ref().map(|lens| U32View::new(lens, 0, 2));
                let got = ctx.check_blocks(&problem, view, on_gpu).wait();
                let text = |result: &Result<(), Error>| result.as_ref().err().map(ToString::to_string);
                assert_eq!(text(&got), text(&expected), "{what}");
            }
        }
    }
}

/// Invalid lists give wrong numbers at worst: no device is lost, and other rows keep their bits.
#[test]
fn hostile_lists_stay_in_their_rows() {
    let case = Case::<f32>::random(shape(1, [8, 60], [1, 2]), Mask::Causal, 3);
    let selection = BlockListSpec::new(8, 16, 4).with_sink_size(2).with_window_size(5);
    let indices = vec![0, 16, 32, wattn::PADDING];
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F32]) {
            let good = [indices.clone(), indices.clone()].concat();
            let run = |indices: &[u32], counts: [u32; 2]| attend_raw(ctx, tier, &case, selection, indices, &counts);
            let expected = run(&good, [3, 3]);
            for (bad, count) in [(vec![u32::MAX; 4], u32::MAX), (vec![59, 3, u32::MAX - 7, 0], 4)] {
                let got = run(&[bad, indices.clone()].concat(), [count, 3]);
                for query in 0..8 {
                    let what = format!("{} {tier} query {query}", ctx.describe());
                    assert_eq!(got.row(0, query, 1), expected.row(0, query, 1), "{what}");
                    assert!(got.row(0, query, 0).iter().all(|x| x.is_finite()), "{what}");
                }
            }
        }
    }
}

/// Attention over unchecked lists.
fn attend_raw(
    ctx: &Context,
    tier: Tier,
    case: &Case<f32>,
    selection: BlockListSpec,
    indices: &[u32],
    counts: &[u32],
) -> HostTensor {
    let problem = case.problem().with_blocks(selection).with_lse();
    let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), tier, tiny_tiling(ctx.caps(), tier, 1)).unwrap();
    let buffers = common::gpu::Buffers::new(ctx, case, &problem);
    let (indices, counts) = (common::gpu::buffer(ctx, indices), common::gpu::buffer(ctx, counts));
    let lists =
        BlockListsView::new(U32View::new(&indices, 0, indices.size() / 4), U32View::new(&counts, 0, counts.size() / 4));
    let bound = common::gpu::bind(ctx, &plan, buffers.args().with_blocks(lists));
    common::gpu::submit(ctx, |encoder| bound.encode(encoder));
    buffers.read(ctx).0
}
