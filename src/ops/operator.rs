//! The shell of operators with one kernel on the GPU: prepare, bind, encode. An operator states how its arguments are bound.

use std::sync::Arc;

use super::bind::{BoundTensor, check_apart};
use super::bound::Bound;
use super::params::step_of;
use crate::kernels::places::SeqLensPlace;
use crate::plan::{Dispatch, OneDispatch, OperatorPlan};
use crate::shader::BindingKind;
use crate::{Context, DeviceCaps, Pipeline, Result, Slots, Step};

/// How a problem's arguments are bound.
pub trait BindArgs: OneDispatch {
    /// The tensors of a call.
    type Args<'a>;

    /// Checks the views of a call and turns offsets, strides and sizes into the kernel's uniform.
    #[doc(hidden)]
    fn bind<'a>(&self, args: Self::Args<'a>, caps: &DeviceCaps) -> Result<Call<'a>>;
}

/// The checked arguments of a call: the slots, and the numbers of the uniform, each by its name in the kernel's text.
#[derive(Debug, Default)]
pub struct Call<'a> {
    /// `None`: a stand-in, which the kernel never touches.
    buffers: Vec<(&'static str, Option<BoundTensor<'a>>)>,
    /// A number's name is both texts joined; the second may be empty.
    numbers: Vec<(&'static str, &'static str, u32)>,
    seq_lens_place: Option<SeqLensPlace>,
}

impl<'a> Call<'a> {
    pub(super) fn new(numbers: &[(&'static str, u32)]) -> Self {
        let numbers = numbers.iter().map(|&(name, number)| (name, "", number)).collect();
        Self { buffers: Vec::new(), numbers, seq_lens_place: None }
    }

    pub(super) fn number(mut self, name: &'static str, number: u32) -> Self {
        self.numbers.push((name, "", number));
        self
    }

    /// Binds a tensor whose numbers count vec4 elements: `name_offset`, `name_batch`, `name_seq`, `name_head`.
    pub(super) fn vec4(self, name: &'static str, bound: BoundTensor<'a>) -> Self {
        let (offset, strides) = bound.in_vec4();
        self.placed(name, ["_offset", "_batch", "_seq", "_head"], (offset, strides), Some(bound))
    }

    /// The same for scores `[batch, set, q_block, block]`, in elements.
    pub(super) fn scores(self, name: &'static str, bound: BoundTensor<'a>) -> Self {
        let place = (bound.offset, bound.strides);
        self.placed(name, ["_offset", "_batch", "_set", "_q_block"], place, Some(bound))
    }

    /// Binds a list, or a stand-in where there is no list.
    pub(super) fn list(mut self, name: &'static str, bound: Option<BoundTensor<'a>>) -> Self {
        self.buffers.push((name, bound));
        self
    }

    /// Binds the lengths of the sequences and where they begin, where there are any.
    pub(super) fn lengths(mut self, bound: Option<BoundTensor<'a>>) -> Self {
        self.seq_lens_place = bound.as_ref().map(BoundTensor::seq_lens_place);
        self.list("seq_lens_kv", bound)
    }

    fn placed(
        mut self,
        name: &'static str,
        ends: [&'static str; 4],
        (offset, [first, second, third]): (u32, [u32; 3]),
        bound: Option<BoundTensor<'a>>,
    ) -> Self {
        self.numbers.extend(ends.into_iter().zip([offset, first, second, third]).map(|(end, n)| (name, end, n)));
        self.list(name, bound)
    }

    /// The uniform, in the order of its fields.
    fn uniform(&self, fields: &[&str]) -> Vec<u8> {
        let number = |field: &&str| {
            let named = |(name, end, _): &&(&str, &str, u32)| field.strip_prefix(name) == Some(end);
            self.numbers.iter().find(named).unwrap_or_else(|| panic!("no number for {field}")).2
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
    /// The errors of [`OperatorPlan::new`] and [`Operator::prepare`].
    ///
    /// # Cost
    /// The cost of [`Operator::prepare`].
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
        // The driver of this device must not get a plan that was made for another.
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
    /// An error that names the tensor, as from [`Attention::bind_with`](crate::Attention::bind_with).
    ///
    /// # Cost
    /// Creates a bind group and a small uniform buffer. Submits nothing.
    pub fn bind(&self, args: P::Args<'_>) -> Result<Bound> {
        let bind = || bind_one(&self.ctx, &self.plan.problem, args, (&self.pipeline, self.plan.dispatch()));
        let steps = self.ctx.scoped("binding an operator", bind)??;
        Ok(Bound::new(self.pipeline.label(), steps))
    }
}

/// The dispatch of an operator with its arguments bound; nothing where there is nothing to compute. Errors of the
/// device are the caller's to catch.
pub(super) fn bind_one<P: BindArgs>(
    ctx: &Context,
    problem: &P,
    args: P::Args<'_>,
    (pipeline, dispatch): (&Pipeline, &Dispatch),
) -> Result<Vec<Step>> {
    let call = problem.bind(args, ctx.caps())?;
    let params = pipeline.bindings().iter().find(|binding| binding.name == "params");
    let uniform = call.uniform(params.map_or(&[], |params| params.fields));
    let mut slots = Slots::new().uniform("params", &uniform);
    if let Some(place) = &call.seq_lens_place {
        slots = slots.uniform("seq_lens_place", bytemuck::bytes_of(place));
    }
    for (name, bound) in &call.buffers {
        if let Some(bound) = bound {
            slots = slots.with(name, bound.slot());
        }
    }
    for written in pipeline.bindings().iter().filter(|binding| binding.kind == BindingKind::Write) {
        let of = |wanted: bool| {
            let named = call.buffers.iter().filter(move |(name, _)| (*name == written.name) == wanted);
            named.filter_map(|(name, bound)| bound.as_ref().map(|bound| (*name, bound.buffer)))
        };
        let others: Vec<_> = of(false).collect();
        of(true).try_for_each(|written| check_apart(written, &others))?;
    }
    let is_empty = dispatch.workgroups.contains(&0);
    Ok(if is_empty { Vec::new() } else { vec![step_of(ctx, pipeline, dispatch, &slots)?] })
}
