//! Attention whose q, k and v have different formats, on every adapter, against the f64 oracle: the kernels of plans with other modules in
//! the place of formats, run through the open layer. Inputs are exact in every format, so that formats change no result.

mod common;

use std::collections::BTreeSet;

use common::gpu::{buffer, contexts, matrix_contexts, problem_of, read_all, submit, tiers, tilings, tiny_tiling};
use common::mixed::{FORMATS, mixed, takes_any_format};
use common::selected::{SELECTION, SelectedCase};
use common::{Case, Exp, shape};
use half::{bf16, f16};
use wattn::kernels::modules;
use wattn::{
    Attention, AttentionOutput, AttentionPlan, BindingKind, Context, DType, HostBlockLists, HostTensor, Mask, Module,
    Need, Pipeline, Slots, Tier,
};

/// A tensor as a format stores it.
fn stored(ctx: &Context, tensor: &HostTensor, format: &Module) -> wgpu::Buffer {
    let data = tensor.data();
    if format == &modules::ELEM_F32 {
        buffer(ctx, data)
    } else if format == &modules::ELEM_BF16 {
        buffer(ctx, &data.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>())
    } else {
        buffer(ctx, &data.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>())
    }
}

/// Runs a plan's dispatches on tensors of these formats.
fn run_mixed(
    ctx: &Context,
    plan: &AttentionPlan,
    case: &Case<f32>,
    blocks: Option<&HostBlockLists>,
    formats: [&'static Module; 3],
) -> AttentionOutput {
    let len = |shape: [u32; 4]| shape.iter().map(|&n| n as usize).product::<usize>();
    let [q, k, v] = [(&case.q, 0), (&case.k, 1), (&case.v, 2)].map(|(of, at)| stored(ctx, of, formats[at]));
    let [indices, counts] = match blocks {
        Some(blocks) => [blocks.block_indices(), blocks.block_counts()].map(|list| buffer(ctx, list)),
        None => [&[0u32], &[0]].map(|list| buffer(ctx, list)),
    };
    let workspace = buffer(ctx, &vec![7.0f32; (plan.workspace_bytes() as usize / 4).max(4)]);
    let out = buffer(ctx, &vec![7.0f32; len(case.shape.out())]);
    let lse = buffer(ctx, &vec![7.0f32; len(case.shape.lse())]);
    for (index, dispatch) in plan.dispatches().iter().enumerate() {
        let mut variant = dispatch.specialization.clone();
        if variant.modules_for("q").next().is_some() {
            assert!(takes_any_format(&variant));
            variant = mixed(&variant, formats);
        }
        let pipeline = Pipeline::prepare(ctx, &variant).unwrap();
        for (stretch, numbers) in dispatch.stretches.iter().zip(Attention::uniforms(plan, index)) {
            let mut slots = Slots::new();
            for binding in pipeline.bindings() {
                let name = binding.name;
                let view = plan.workspace_views().into_iter().find(|(view, _)| *view == name);
                slots = match (name, view) {
                    _ if binding.kind == BindingKind::Uniform || binding.kind == BindingKind::Stretch => {
                        let (_, words) = numbers.iter().find(|(number, _)| *number == name).unwrap();
                        slots.uniform(name, bytemuck::cast_slice(words))
                    }
                    (_, Some((_, range))) => slots.range(name, &workspace, range.start, range.end - range.start),
                    ("q", _) => slots.buffer(name, &q),
                    ("k", _) => slots.buffer(name, &k),
                    ("v", _) => slots.buffer(name, &v),
                    ("out", _) => slots.buffer(name, &out),
                    ("lse", _) => slots.buffer(name, &lse),
                    ("block_indices", _) => slots.buffer(name, &indices),
                    ("block_counts", _) => slots.buffer(name, &counts),
                    _ => panic!("{name}"),
                };
            }
            let step = pipeline.bind(ctx, &slots, stretch.workgroups).unwrap();
            submit(ctx, |encoder| step.encode(encoder));
        }
    }
    let tensor = |shape, buffer| HostTensor::new(shape, read_all::<f32>(ctx, buffer)).unwrap();
    AttentionOutput::new(tensor(case.shape.out(), &out), tensor(case.shape.lse(), &lse))
}

fn runs_on(ctx: &Context, formats: [&Module; 3]) -> bool {
    let f16 = ctx.device().features().contains(wgpu::Features::SHADER_F16);
    f16 || formats.iter().all(|format| !format.needs().contains(&Need::F16))
}

/// Rows by keys, by columns, spread and staged, in splits and whole, over a range of keys and over lists.
#[test]
fn mixed_formats_are_attended() {
    let shape = shape(2, [7, 45], [2, 3]);
    let dense = Case::<f32>::painted(shape, Mask::Causal);
    let listed = SelectedCase::random("mixed lists", dense.clone(), SELECTION, 5);
    for ctx in contexts() {
        let mut turn = 0;
        // The simplest tier, and the one with most features.
        let mut tiers = tiers(ctx.caps(), &[DType::F32, DType::F16]);
        tiers.retain(|tier| !tier.matrix());
        let ends = BTreeSet::from([tiers[0], tiers[tiers.len() - 1]]);
        let all =
            ends.into_iter().flat_map(|tier| tilings(ctx.caps(), tier).into_iter().map(move |tiling| (tier, tiling)));
        for (tier, tiling) in all {
            let formats: Vec<_> = FORMATS.into_iter().filter(|&formats| runs_on(ctx, formats)).collect();
            let formats = formats[turn % formats.len()];
            turn += 1;
            let what = format!("{} {tier} {tiling} {:?}", ctx.describe(), formats.map(Module::name));
            let plan = |problem| AttentionPlan::with_tiling(&problem, ctx.caps(), tier, tiling).unwrap();

            let plan_of_range = plan(problem_of(&dense, DType::F32));
            let got = run_mixed(ctx, &plan_of_range, &dense, None, formats);
            dense.check_with(&got, Exp::of(&plan_of_range), &what);

            let plan_of_lists = plan(problem_of(&dense, DType::F32).with_blocks(SELECTION));
            let got = run_mixed(ctx, &plan_of_lists, &listed.case, Some(&listed.blocks), formats);
            SelectedCase { name: what, ..listed.clone() }.check(&got, Exp::of(&plan_of_lists));
        }
        assert!(turn >= 4, "{}", ctx.describe());
    }
}

/// Two loads of one tensor in 16 bytes beside single ones of the other.
#[test]
fn loads_of_16_bytes_stand_beside_others() {
    let case = Case::<f32>::painted(shape(1, [1, 77], [2, 2]), Mask::Causal);
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::BF16]).into_iter().rev().take(1) {
            let tiling = common::gpu::columns_tilings(ctx.caps(), tier)[0];
            let problem = problem_of(&Case::<bf16>::painted(case.shape, case.mask), DType::F32).with_aligned_rows();
            let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), tier, tiling).unwrap();
            let constant = |name| plan.dispatches()[0].specialization.constant(name);
            assert_eq!([constant("K_PER_LOAD"), constant("V_PER_LOAD")], [Some(2); 2]);
            for formats in FORMATS.into_iter().filter(|formats| !formats.contains(&&modules::ELEM_F16)) {
                let what = format!("{} {tier} {:?}", ctx.describe(), formats.map(Module::name));
                let got = run_mixed(ctx, &plan, &case, None, formats);
                case.check_with(&got, Exp::of(&plan), &what);
            }
        }
    }
}

/// Factors that are scaled by powers of two come from any format.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn mixed_formats_are_multiplied() {
    let case = Case::<f32>::painted(shape(2, [40, 70], [2, 2]), Mask::Causal);
    let of_bf16 = Case::<bf16>::painted(case.shape, case.mask);
    for ctx in matrix_contexts() {
        let problem = problem_of(&of_bf16, DType::F32).with_bf16_by_f16_matrices();
        for (formats, num_splits) in FORMATS.into_iter().zip([1, 3, 1, 3, 1]) {
            let tiling = tiny_tiling(ctx.caps(), Tier::Matrix, num_splits);
            let plan = AttentionPlan::with_tiling(&problem, ctx.caps(), Tier::Matrix, tiling).unwrap();
            let what = format!("{} {:?}", ctx.describe(), formats.map(Module::name));
            let got = run_mixed(ctx, &plan, &case, None, formats);
            case.check_with(&got, Exp::of(&plan), &what);
        }
    }
}
