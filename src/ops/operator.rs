//! Operators of one kernel on the GPU: prepare, bind, encode. An operator says what its arguments are bound as.

use std::sync::Arc;

use super::bind::{Bound, check_apart};
use crate::plan::{OneDispatch, OperatorPlan};
use crate::shader::BindingKind;
use crate::slots::Slot;
use crate::step::{encode_stretch_in, num_stretches};
use crate::{Context, DeviceCaps, Pipeline, Result, Slots, Step, Stretch};

/// What a problem's arguments are bound as.
pub trait BindArgs: OneDispatch {
    /// The tensors of a call.
    type Args<'a>;

    /// Checks the views of a call. Offsets, strides and sizes become the kernel's uniform.
    #[doc(hidden)]
    fn bind<'a>(&self, args: Self::Args<'a>, caps: &DeviceCaps) -> Result<Call<'a>>;
}

/// The checked arguments of a call: what is bound, and the numbers of the uniform, each by its name in the kernel's text.
#[derive(Debug, Default)]
pub struct Call<'a> {
    /// `None`: never touched.
    buffers: Vec<(&'static str, Option<Bound<'a>>)>,
    /// A number's name is the first text, and the second if there is one.
    numbers: Vec<(&'static str, &'static str, u32)>,
}

impl<'a> Call<'a> {
    pub(super) fn new(numbers: &[(&'static str, u32)]) -> Self {
        let numbers = numbers.iter().map(|&(name, number)| (name, "", number)).collect();
        Self { buffers: Vec::new(), numbers }
    }

    pub(super) fn number(mut self, name: &'static str, number: u32) -> Self {
        self.numbers.push((name, "", number));
        self
    }

    /// Binds a tensor whose numbers count vec4 elements: `name_offset`, `name_batch`, `name_seq`, `name_head`.
    pub(super) fn vec4(self, name: &'static str, bound: Bound<'a>) -> Self {
        let (offset, strides) = bound.in_vec4();
        self.placed(name, ["_offset", "_batch", "_seq", "_head"], (offset, strides), Some(bound))
    }

    /// The same of scores `[batch, set, q_block, block]`, in elements.
    pub(super) fn scores(self, name: &'static str, bound: Bound<'a>) -> Self {
        let place = (bound.offset, bound.strides);
        self.placed(name, ["_offset", "_batch", "_set", "_q_block"], place, Some(bound))
    }

    /// A list, or none that is looked at.
    pub(super) fn list(mut self, name: &'static str, bound: Option<Bound<'a>>) -> Self {
        self.buffers.push((name, bound));
        self
    }

    fn placed(
        mut self,
        name: &'static str,
        ends: [&'static str; 4],
        (offset, [first, second, third]): (u32, [u32; 3]),
        bound: Option<Bound<'a>>,
    ) -> Self {
        self.numbers.extend(ends.into_iter().zip([offset, first, second, third]).map(|(end, n)| (name, end, n)));
        self.list(name, bound)
    }

    /// The uniform of a stretch, in the order of its fields.
    fn uniform(&self, fields: &[&str], stretch: &Stretch) -> Vec<u8> {
        let number = |field: &&str| {
            let named = |(name, end, _): &&(&str, &str, u32)| field.strip_prefix(name) == Some(end);
            match (*field, self.numbers.iter().find(named)) {
                ("first_place", _) => stretch.first,
                (_, Some((.., number))) => *number,
                (field, None) => panic!("no number for {field}"),
            }
        };
        fields.iter().flat_map(|field| number(field).to_ne_bytes()).collect()
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
        let call = self.plan.problem.bind(args, self.ctx.caps())?;
        let mut slots = Slots::new();
        for (name, bound) in &call.buffers {
            slots = slots.with(name, bound.as_ref().map_or(Slot::Unused, Bound::slot));
        }
        for written in self.pipeline.bindings().iter().filter(|binding| binding.kind == BindingKind::Write) {
            let of = |wanted: bool| {
                let named = call.buffers.iter().filter(move |(name, _)| (*name == written.name) == wanted);
                named.filter_map(|(name, bound)| bound.as_ref().map(|bound| (*name, bound.buffer)))
            };
            let others: Vec<_> = of(false).collect();
            of(true).try_for_each(|written| check_apart(written, &others))?;
        }
        let stretches = &self.plan.dispatch().stretches;
        let fields = self.pipeline.bindings()[0].fields;
        let uniforms: Vec<_> = stretches.iter().map(|stretch| call.uniform(fields, stretch)).collect();
        let grids: Vec<_> = stretches.iter().map(|stretch| stretch.workgroups).collect();
        let bind = || Step::new(&self.ctx, &self.pipeline, &slots, &grids, &uniforms);
        let is_empty = self.plan.dispatch().workgroups.contains(&0);
        let steps = if is_empty { Vec::new() } else { vec![self.ctx.scoped("binding an operator", bind)??] };
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
