//! A selection by operators: the tensors that go from one to the next lie in its memory.

use super::bind::BoundTensor;
use super::operator::bind_one;
use super::params::step_of;
use super::select::{SelectionArgs, SelectionMemory, Tensors};
use super::{BlockScoreArgs, PoolArgs, TopKArgs};
use crate::plan::{Dispatch, Region, RegionMemory};
use crate::shader::BindingKind;
use crate::{
    Binding, Context, DType, KernelStep, Layout, Pipeline, Result, SelectionPlan, SelectorStep, Slots, Step,
    TensorView, TensorViewMut,
};

/// One operator with its arguments bound; nothing where there is nothing to compute.
pub(super) fn bind_operator(
    ctx: &Context,
    plan: &SelectionPlan,
    index: usize,
    kernel: (&Pipeline, &Dispatch),
    (args, tensors, memory): (&SelectionArgs<'_>, &Tensors<'_>, SelectionMemory<'_>),
) -> Result<Option<Step>> {
    let place = |name| {
        let region = plan.region(name);
        let [batch, seq, heads, dim] = region.shape;
        let layout = Layout { offset: region.offset_bytes / 4, ..Layout::seq_major(batch, seq, heads, dim) };
        (buffer_of(memory, region), layout)
    };
    let read = |name| {
        let (buffer, layout) = place(name);
        TensorView::new(buffer, DType::F32, layout)
    };
    let write = |name| {
        let (buffer, layout) = place(name);
        TensorViewMut::new(buffer, DType::F32, layout)
    };
    let steps = match &plan.operators[index] {
        SelectorStep::Pool { problem, summaries } => {
            bind_one(ctx, problem, PoolArgs::new(args.k, write(summaries)).with_seq_lens(args.seq_lens_kv), kernel)
        }
        SelectorStep::Score { problem, summaries, scores } => {
            let args = BlockScoreArgs::new(args.q, read(summaries), write(scores)).with_seq_lens_kv(args.seq_lens_kv);
            bind_one(ctx, problem, args, kernel)
        }
        SelectorStep::TopK { problem, scores } => {
            bind_one(ctx, problem, TopKArgs::new(read(scores), args.blocks).with_marks(args.marks), kernel)
        }
        SelectorStep::Kernel(step) => return bind_own(ctx, plan, step, kernel, (tensors, memory)).map(Some),
    };
    Ok(steps?.pop())
}

/// A caller's kernel: buffers and numbers by the names of its bindings, which were checked with the steps.
fn bind_own(
    ctx: &Context,
    plan: &SelectionPlan,
    step: &KernelStep,
    (pipeline, dispatch): (&Pipeline, &Dispatch),
    (tensors, memory): (&Tensors<'_>, SelectionMemory<'_>),
) -> Result<Step> {
    let number = |field: &str| {
        let place = |(name, tensor): (&str, &BoundTensor<'_>)| {
            let (offset, [batch, seq, head]) = tensor.in_vec4();
            let numbers = [("_offset", offset), ("_batch", batch), ("_seq", seq), ("_head", head)];
            numbers.into_iter().find(|(end, _)| field.strip_prefix(name) == Some(end)).map(|(_, number)| number)
        };
        let places = || [("q", &tensors.q), ("k", &tensors.k)].into_iter().find_map(place);
        step.number(plan.problem.shape(), field).or_else(places).expect("fields were checked with the steps")
    };
    let fields = |binding: &Binding| binding.fields.iter().flat_map(|field| number(field).to_ne_bytes()).collect();
    let uniforms: Vec<(&'static str, Vec<u8>)> = pipeline
        .bindings()
        .iter()
        .filter(|binding| binding.kind == BindingKind::Uniform)
        .map(|binding| (binding.name, fields(binding)))
        .collect();
    let mut slots = uniforms.iter().fold(Slots::new(), |slots, (name, bytes)| slots.uniform(name, bytes));
    for binding in pipeline.bindings().iter().filter(|binding| binding.kind.is_storage()) {
        slots = match binding.name {
            "q" => slots.with("q", tensors.q.slot()),
            "k" => slots.with("k", tensors.k.slot()),
            name => {
                let region = plan.region(name);
                let bytes = 4 * region.shape.iter().map(|&axis| u64::from(axis)).product::<u64>();
                slots.range(name, buffer_of(memory, region), region.offset_bytes, bytes)
            }
        };
    }
    step_of(ctx, pipeline, dispatch, &slots)
}

fn buffer_of(memory: SelectionMemory<'_>, region: Region) -> &wgpu::Buffer {
    match region.memory {
        RegionMemory::Samples => &memory.samples.buffer,
        RegionMemory::Scratch => &memory.scratch.buffer,
        RegionMemory::Cache => &memory.cache.buffer,
    }
}
