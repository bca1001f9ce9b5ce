//! The part that all operators share: compilation, and encoding once bound. An operator adds its problem, its plan and its arguments.

use crate::device::step::{encode_stretch_in, num_stretches, submit};
use crate::plan::Dispatch;
use crate::{Context, Pipeline, Result, Step};

/// An operator with its buffers bound. Encode it as often as you like; the GPU reads the buffers when it runs.
#[derive(Clone, Debug)]
pub struct Bound {
    steps: Vec<Step>,
    label: &'static str,
}

impl Bound {
    pub(crate) const fn new(label: &'static str, steps: Vec<Step>) -> Self {
        Self { steps, label }
    }

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

    /// The number of dispatches that [`encode`](Self::encode) encodes. A kernel has several where the plan cut its grid.
    #[must_use]
    pub fn num_stretches(&self) -> usize {
        num_stretches(self.steps.iter())
    }

    /// Encodes one of the dispatches into the caller's compute pass, so that a caller can submit them one by one: some systems put a time
    /// limit on each submission, not on each dispatch. All must run, in order. Does nothing for an index of
    /// [`num_stretches`](Self::num_stretches) or more.
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode_stretch_in(&self, pass: &mut wgpu::ComputePass<'_>, index: usize) {
        encode_stretch_in(self.steps.iter(), pass, index);
    }

    /// Submits it.
    pub(crate) fn submit(&self, ctx: &Context) {
        submit(ctx, self.label, &self.steps.iter().collect::<Vec<_>>());
    }
}

/// The pipelines of a plan's dispatches, in their order.
pub(crate) fn prepare(ctx: &Context, dispatches: &[Dispatch]) -> Result<Vec<Pipeline>> {
    dispatches.iter().map(|dispatch| Pipeline::of_operator(ctx, &dispatch.specialization)).collect()
}
