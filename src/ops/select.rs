//! Selection of key blocks on the GPU.

use std::sync::Arc;

use super::attend::{BlockListsView, check_blocks};
use super::bind::{Access, BoundTensor, Expect, U32View, check_apart, check_lens, check_tensor};
use super::bound::prepare;
use super::params::{Uniforms, numbers_in_words, step_of};
use super::select_operators::bind_operator;
use super::select_params::{Places, numbers};
use super::workspace::Workspace;
use crate::device::slots::Slot;
use crate::device::step::{encode_stretch_in, num_stretches, submit};
use crate::kernels::places::SeqLensPlace;
use crate::plan::{Samples, SelectStep};
use crate::problem::exactly_when;
use crate::{Context, Error, Pipeline, Result, SelectionPlan, Slots, Step, TensorView};

/// The compiled pipelines of a [`SelectionPlan`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Selection {
    ctx: Context,
    plan: Arc<SelectionPlan>,
    pipelines: Vec<Pipeline>,
}

/// The tensors of one selection.
#[derive(Debug)]
pub struct SelectionArgs<'a> {
    pub(crate) q: TensorView<'a>,
    pub(crate) k: TensorView<'a>,
    pub(crate) blocks: BlockListsView<'a>,
    pub(crate) seq_lens_kv: Option<U32View<'a>>,
    pub(crate) marks: Option<U32View<'a>>,
}

impl<'a> SelectionArgs<'a> {
    /// q `[batch, seq_len_q, num_q_heads, head_dim]`, k `[batch, seq_len_kv, num_kv_heads, head_dim]`, and where the lists
    /// go: two buffers of the caller's, which attention then reads.
    #[must_use]
    pub const fn new(q: TensorView<'a>, k: TensorView<'a>, blocks: BlockListsView<'a>) -> Self {
        Self { q, k, blocks, seq_lens_kv: None, marks: None }
    }

    /// Sets the keys of each sequence, `[batch]`, exactly when the problem says
    /// [`with_seq_lens_kv`](crate::SelectionProblem::with_seq_lens_kv). The kernels clamp values to `seq_len_kv`.
    #[must_use]
    pub fn with_seq_lens_kv(mut self, seq_lens_kv: impl Into<Option<U32View<'a>>>) -> Self {
        self.seq_lens_kv = seq_lens_kv.into();
        self
    }

    /// Sets a [`Mark`](crate::Mark) for each block of each list, contiguous, exactly when the method takes marks: see
    /// [`marks_shape`](crate::SelectionProblem::marks_shape).
    #[must_use]
    pub fn with_marks(mut self, marks: impl Into<Option<U32View<'a>>>) -> Self {
        self.marks = marks.into();
        self
    }
}

/// Memory of a selection. Calls that are encoded one after another may share `samples` and `scratch`, whatever their sizes; `cache`
/// holds what stages keep from step to step, so that each layer needs its own.
#[derive(Clone, Copy, Debug)]
pub struct SelectionMemory<'a> {
    pub(crate) samples: &'a Workspace,
    pub(crate) scratch: &'a Workspace,
    pub(crate) cache: &'a Workspace,
}

impl<'a> SelectionMemory<'a> {
    /// At least [`SelectionPlan::samples_bytes`], [`SelectionPlan::scratch_bytes`] and [`SelectionPlan::cache_bytes`].
    #[must_use]
    pub const fn new(samples: &'a Workspace, scratch: &'a Workspace, cache: &'a Workspace) -> Self {
        Self { samples, scratch, cache }
    }
}

impl Selection {
    /// Compiles the kernels of a plan, or finds them in the context's cache.
    ///
    /// # Errors
    /// [`Error::Validation`] when the driver refuses a shader, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    ///
    /// # Cost
    /// Compiles on a cache miss. Submits nothing.
    pub fn prepare(ctx: &Context, plan: &SelectionPlan) -> Result<Self> {
        // The driver of this device must not get a plan that was made for another.
        ctx.caps().require(plan.tier())?;
        let pipelines = prepare(ctx, plan.dispatches())?;
        Ok(Self { ctx: ctx.clone(), plan: Arc::new(plan.clone()), pipelines })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &SelectionPlan {
        &self.plan
    }

    /// Binds buffers, with memory of our own.
    ///
    /// # Errors
    /// The errors of [`Selection::bind_with`], and of [`Workspace::new`].
    ///
    /// # Cost
    /// The cost of [`Selection::bind_with`], and three buffers.
    pub fn bind(&self, args: SelectionArgs<'_>) -> Result<BoundSelection> {
        let new = |bytes| Workspace::new(&self.ctx, bytes);
        let samples = new(self.plan.samples_bytes())?;
        let (scratch, cache) = (new(self.plan.scratch_bytes())?, new(self.plan.cache_bytes())?);
        self.bind_with(args, SelectionMemory::new(&samples, &scratch, &cache))
    }

    /// Checks the views and binds their buffers for any number of `encode` calls.
    ///
    /// # Errors
    /// An error that names the tensor, as from [`Attention::bind_with`](crate::Attention::bind_with).
    ///
    /// # Cost
    /// Creates a bind group and a small uniform buffer for each dispatch. Submits nothing.
    pub fn bind_with(&self, args: SelectionArgs<'_>, memory: SelectionMemory<'_>) -> Result<BoundSelection> {
        let tensors = self.check(&args, memory)?;
        let steps = self.ctx.scoped("binding a selection", || self.steps(&tensors, (&args, memory)))??;
        Ok(BoundSelection { plan: Arc::clone(&self.plan), steps })
    }

    fn check<'a>(&self, args: &SelectionArgs<'a>, memory: SelectionMemory<'a>) -> Result<Tensors<'a>> {
        let (problem, caps) = (&self.plan.problem, self.ctx.caps());
        let (shape, dtype) = (problem.shape(), problem.dtype);
        let input = |tensor, shape| Expect { tensor, shape, dtype, access: Access::Read, at_a_time: 4 };
        let seq_lens_kv = check_lens("seq_lens_kv", args.seq_lens_kv, problem.seq_lens_kv, shape.batch_size, caps)?;
        let mut others = vec![("q", args.q.buffer), ("k", args.k.buffer)];
        others.extend(args.seq_lens_kv.map(|view| ("seq_lens_kv", view.buffer)));
        let marks = exactly_when("marks", args.marks, problem.marks_shape().is_some())?;
        others.extend(marks.map(|view| ("marks", view.buffer)));
        for (name, buffer, needed) in [
            ("samples", &memory.samples.buffer, self.plan.samples_bytes()),
            ("scratch", &memory.scratch.buffer, self.plan.scratch_bytes()),
            ("cache", &memory.cache.buffer, self.plan.cache_bytes()),
            ("block_indices", args.blocks.block_indices.buffer, 0),
            ("block_counts", args.blocks.block_counts.buffer, 0),
        ] {
            if buffer.size() < needed {
                return Err(Error::OutOfBounds { tensor: name, end: needed, len: buffer.size() });
            }
            check_apart((name, buffer), &others)?;
            others.push((name, buffer));
        }
        Ok(Tensors {
            q: check_tensor(args.q, input("q", problem.q_shape()), caps)?,
            k: check_tensor(args.k, input("k", problem.k_shape()), caps)?,
            seq_lens_kv,
            blocks: check_blocks(&args.blocks, &problem.blocks(), shape, caps)?,
        })
    }

    fn steps(
        &self,
        tensors: &Tensors<'_>,
        (args, memory): (&SelectionArgs<'_>, SelectionMemory<'_>),
    ) -> Result<Vec<Option<Step>>> {
        let Tensors { q, k, seq_lens_kv, blocks: [indices, counts] } = tensors;
        // wgpu has no empty bindings; a workspace always has some bytes.
        let scratch = Slot::Range(&memory.scratch.buffer, 0, self.plan.scratch_bytes().max(4));
        let mut slots = Slots::new()
            .with("q", q.slot())
            .with("k", k.slot())
            .with("scratch", scratch)
            .with("scores", scratch)
            .range("cache", &memory.cache.buffer, 0, self.plan.cache_bytes().max(4))
            .with("block_indices", indices.slot())
            .with("block_counts", counts.slot());
        if let Some(lens) = seq_lens_kv {
            slots = slots.with("seq_lens_kv", lens.slot());
        }
        let mut steps = Vec::with_capacity(self.pipelines.len());
        for ((&what, dispatch), pipeline) in self.plan.steps.iter().zip(self.plan.dispatches()).zip(&self.pipelines) {
            if dispatch.workgroups.contains(&0) {
                steps.push(None);
                continue;
            }
            if let SelectStep::Operator(index) = what {
                steps.push(bind_operator(&self.ctx, &self.plan, index, (pipeline, dispatch), (args, tensors, memory))?);
                continue;
            }
            let samples = self.plan.samples_of(what);
            let slots =
                slots.clone().range("samples", &memory.samples.buffer, samples.offset_bytes, samples.size_bytes);
            let numbers = numbers(&self.plan, what, &tensors.places());
            let slots = numbers.iter().fold(slots, |slots, (name, bytes)| slots.uniform(name, bytes));
            steps.push(Some(step_of(&self.ctx, pipeline, dispatch, &slots)?));
        }
        Ok(steps)
    }

    /// The uniforms of a dispatch's stretches over contiguous tensors, in words. For tests that run kernels without a device.
    #[doc(hidden)]
    #[must_use]
    pub fn uniforms(plan: &SelectionPlan, dispatch: usize) -> Vec<Uniforms> {
        let in_vec4 =
            |[_, seq, heads, dim]: [u32; 4]| (0, [seq * heads * dim, heads * dim, dim].map(|stride| stride / 4));
        let places = Places {
            q: in_vec4(plan.problem.q_shape()),
            k: in_vec4(plan.problem.k_shape()),
            seq_lens_kv: plan.problem.seq_lens_kv.then(SeqLensPlace::default),
            blocks: [0; 2],
        };
        numbers_in_words(&numbers(plan, plan.steps[dispatch], &places), &plan.dispatches()[dispatch].stretches)
    }
}

impl SelectionPlan {
    /// The samples that a dispatch writes or reads.
    pub(super) fn samples_of(&self, step: SelectStep) -> Samples {
        match step {
            SelectStep::Sample(index) => self.samples[index],
            // A list of operators has no samples: its summaries lie there.
            SelectStep::Search(_) | SelectStep::Operator(_) => self.samples[0],
            SelectStep::Score(stage) | SelectStep::Select(stage) => self.samples[self.stages[stage].samples],
        }
    }
}

/// The checked tensors of a call.
pub(super) struct Tensors<'a> {
    pub(super) q: BoundTensor<'a>,
    pub(super) k: BoundTensor<'a>,
    seq_lens_kv: Option<BoundTensor<'a>>,
    /// Indices and counts.
    blocks: [BoundTensor<'a>; 2],
}

impl Tensors<'_> {
    fn places(&self) -> Places {
        Places {
            q: self.q.in_vec4(),
            k: self.k.in_vec4(),
            seq_lens_kv: self.seq_lens_kv.as_ref().map(BoundTensor::seq_lens_place),
            blocks: self.blocks.each_ref().map(|list| list.offset),
        }
    }
}

/// A selection with its buffers bound. Encode it as often as you like; the GPU reads the buffers when it runs.
#[derive(Clone, Debug)]
pub struct BoundSelection {
    plan: Arc<SelectionPlan>,
    steps: Vec<Option<Step>>,
}

impl BoundSelection {
    /// Encodes one compute pass that computes all stages.
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.encode_step(encoder, 0);
    }

    /// Encodes the stages that a decode step refreshes, by the method's refresh intervals: all stages at step 0; at others the later
    /// ones, or none. See [`SelectionProblem::first_stage`](crate::SelectionProblem::first_stage).
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode_step(&self, encoder: &mut wgpu::CommandEncoder, step: u64) {
        if self.plan.problem.first_stage(step).is_some() {
            let descriptor = wgpu::ComputePassDescriptor { label: Some("wattn.selection"), timestamp_writes: None };
            self.encode_step_in(&mut encoder.begin_compute_pass(&descriptor), step);
        }
    }

    /// [`encode_step`](Self::encode_step) into the caller's compute pass. Sets its pipeline and bind group 0.
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode_step_in(&self, pass: &mut wgpu::ComputePass<'_>, step: u64) {
        for step in self.steps_of(step) {
            step.encode_in(pass);
        }
    }

    /// The number of dispatches that [`encode_step`](Self::encode_step) encodes. A kernel has several where the plan cut its grid.
    #[must_use]
    pub fn num_stretches(&self, step: u64) -> usize {
        num_stretches(self.steps_of(step))
    }

    /// Encodes one of a step's dispatches into the caller's compute pass, so that a caller can submit them one by one. All must run, in
    /// order. Does nothing for an index of [`num_stretches`](Self::num_stretches) or more.
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode_stretch_in(&self, pass: &mut wgpu::ComputePass<'_>, step: u64, index: usize) {
        encode_stretch_in(self.steps_of(step), pass, index);
    }

    fn steps_of(&self, step: u64) -> impl Iterator<Item = &Step> {
        let first_stage = self.plan.problem.first_stage(step);
        first_stage
            .into_iter()
            .flat_map(|stage| self.plan.steps_from(stage))
            .filter_map(|index| self.steps[index].as_ref())
    }

    /// Submits all stages.
    pub(super) fn submit(&self, ctx: &Context) {
        submit(ctx, "wattn.selection", &self.steps_of(0).collect::<Vec<_>>());
    }
}
