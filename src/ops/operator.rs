//! Operators of one kernel on the GPU: prepare, bind, encode. An operator says what its arguments are bound as.

use std::sync::Arc;

use super::bind::{Bound, check_apart};
use super::params::{Params, step};
use crate::plan::{OneDispatch, OperatorPlan};
use crate::shader::BindingKind;
use crate::slots::Slot;
use crate::step::{encode_stretch_in, num_stretches};
use crate::{Context, DeviceCaps, Pipeline, Result, Slots, Step};

/// What a problem's arguments are bound as.
pub trait BindArgs: OneDispatch {
    /// The tensors of a call.
    type Args<'a>;

    /// Checks the views of a call. Offsets, strides and sizes become the kernel's uniform.
    #[doc(hidden)]
    fn bind<'a>(&self, args: Self::Args<'a>, caps: &DeviceCaps) -> Result<Call<'a>>;
}

/// The checked arguments of a call.
pub struct Call<'a> {
    step: Box<StepOf<'a>>,
    buffers: Buffers<'a>,
}

type StepOf<'a> = dyn FnOnce(&Context, &Pipeline, &crate::Dispatch, &Slots<'_>) -> Result<Step> + 'a;

/// The buffers of bindings by their names; `None`: never touched.
pub(super) type Buffers<'a> = Vec<(&'static str, Option<Bound<'a>>)>;

impl<'a> Call<'a> {
    pub(super) fn new<P: Params>(params: P, buffers: Buffers<'a>) -> Self {
        let step = move |ctx: &Context, pipeline: &Pipeline, dispatch: &crate::Dispatch, slots: &Slots<'_>| {
            step(ctx, pipeline, dispatch, &params, slots)
        };
        Self { step: Box::new(step), buffers }
    }
}

/// The compiled pipeline of an [`OperatorPlan`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator<P> {
    ctx: Context,
    plan: Arc<OperatorPlan<P>>,
    pipeline: Pipeline,
}

impl<P: BindArgs> Operator<P> {
    /// Plans a problem for the context's device, and compiles its kernel.
    ///
    /// # Errors
    /// Those of [`OperatorPlan::new`] and [`Operator::prepare`].
    ///
    /// # Cost
    /// That of [`Operator::prepare`].
    pub fn new(ctx: &Context, problem: &P) -> Result<Self> {
        Self::prepare(ctx, &OperatorPlan::new(problem, ctx.caps())?)
    }

    /// Compiles the kernel of a plan, or finds it in the context's cache.
    ///
    /// # Errors
    /// [`Error::Validation`](crate::Error::Validation) when the driver refuses the shader, and its like.
    ///
    /// # Cost
    /// Compiles on a cache miss. Submits nothing.
    pub fn prepare(ctx: &Context, plan: &OperatorPlan<P>) -> Result<Self> {
        // A plan made for another device must not reach this one's driver.
        ctx.caps().require(plan.tier())?;
        let pipeline = Pipeline::of_operator(ctx, &plan.dispatch().specialization)?;
        Ok(Self { ctx: ctx.clone(), plan: Arc::new(plan.clone()), pipeline })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &OperatorPlan<P> {
        &self.plan
    }

    /// Checks the views and binds their buffers for any number of `encode` calls.
    ///
    /// # Errors
    /// An error that names the tensor, as those of [`Attention::bind_with`](crate::Attention::bind_with).
    ///
    /// # Cost
    /// Creates a bind group and a small uniform buffer. Submits nothing.
    pub fn bind(&self, args: P::Args<'_>) -> Result<BoundOperator> {
        let Call { step, buffers } = self.plan.problem.bind(args, self.ctx.caps())?;
        let mut slots = Slots::new();
        for (name, bound) in &buffers {
            slots = slots.with(name, bound.as_ref().map_or(Slot::Unused, Bound::slot));
        }
        for written in self.pipeline.bindings().iter().filter(|binding| binding.kind == BindingKind::Write) {
            let of = |wanted: bool| {
                let named = buffers.iter().filter(move |(name, _)| (*name == written.name) == wanted);
                named.filter_map(|(name, bound)| bound.as_ref().map(|bound| (*name, bound.buffer)))
            };
            let others: Vec<_> = of(false).collect();
            of(true).try_for_each(|written| check_apart(written, &others))?;
        }
        let dispatch = self.plan.dispatch();
        let steps = if dispatch.workgroups.contains(&0) {
            Vec::new()
        } else {
            vec![self.ctx.scoped("binding an operator", || step(&self.ctx, &self.pipeline, dispatch, &slots))??]
        };
        Ok(BoundOperator { steps, label: self.pipeline.label() })
    }
}

/// An operator with its buffers bound. Encode it as often as you like; what the buffers hold is read when the GPU runs.
#[derive(Clone, Debug)]
pub struct BoundOperator {
    steps: Vec<Step>,
    label: &'static str,
}

impl BoundOperator {
    /// Encodes one compute pass.
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some(self.label), timestamp_writes: None };
        self.encode_in(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// Encodes into the caller's compute pass. Sets its pipeline and bind group 0.
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.steps.iter().for_each(|step| step.encode_in(pass));
    }

    /// Dispatches that [`encode`](Self::encode) encodes: more than one where the plan cut the grid.
    #[must_use]
    pub fn num_stretches(&self) -> usize {
        num_stretches(self.steps.iter())
    }

    /// Encodes one of the dispatches into the caller's compute pass, for callers who submit them apart. Does nothing from
    /// [`num_stretches`](Self::num_stretches) on.
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode_stretch_in(&self, pass: &mut wgpu::ComputePass<'_>, index: usize) {
        encode_stretch_in(self.steps.iter(), pass, index);
    }
}
