//! A method made of operators on a device: the dispatches of their plans, one after the other.

use super::memory::ALIGNMENT;
use super::{SelectStep, SelectionPlan};
use crate::plan::operator::fit_bindings;
use crate::plan::{Dispatch, OneDispatch, Stretch};
use crate::problem::checked_steps;
use crate::{DeviceCaps, Error, KernelStep, Result, Selector, SelectorStep};

/// A tensor in f32 that one step writes and later ones read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) name: &'static str,
    pub(crate) shape: [u32; 4],
    pub(crate) memory: RegionMemory,
    pub(crate) offset_bytes: u64,
}

/// The memory of a selection that holds a tensor of its steps. No dispatch reads and writes the same buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegionMemory {
    /// Of summaries.
    Samples,
    /// Of scores.
    Scratch,
    /// Of what a kernel makes of both.
    Cache,
}

impl SelectionPlan {
    pub(super) fn plan_operators(&mut self, method: &dyn Selector, caps: &DeviceCaps) -> Result<()> {
        self.operators = checked_steps(&self.problem, method)?;
        for (index, step) in self.operators.clone().into_iter().enumerate() {
            let (dispatch, read) = match &step {
                SelectorStep::Pool { problem, .. } => (problem.dispatch(caps, self.tier)?, vec![]),
                SelectorStep::Score { problem, summaries, .. } => {
                    (problem.dispatch(caps, self.tier)?, vec![*summaries])
                }
                SelectorStep::TopK { problem, scores } => (problem.dispatch(caps, self.tier)?, vec![*scores]),
                SelectorStep::Kernel(step) => (own_dispatch(step, caps)?, step.reads().collect()),
            };
            self.push(SelectStep::Operator(index), 0, dispatch);
            let Some((name, shape)) = step.written() else { continue };
            let bytes = 4 * shape.iter().map(|&axis| u64::from(axis)).product::<u64>(); // fits a binding: the step's plan saw
            let taken = |memory| self.regions.iter().any(|of| of.memory == memory && read.contains(&of.name));
            let mut free = match step {
                SelectorStep::Pool { .. } => [RegionMemory::Samples, RegionMemory::Scratch, RegionMemory::Cache],
                _ => [RegionMemory::Scratch, RegionMemory::Samples, RegionMemory::Cache],
            }
            .into_iter()
            .filter(|&memory| !taken(memory));
            let Some(memory) = free.next() else {
                let rule = "may read tensors of two kinds, of summaries and of scores: not of kernels that read both";
                return Err(Error::Argument { argument: "steps", rule });
            };
            let end = match memory {
                RegionMemory::Samples => &mut self.summaries_bytes,
                RegionMemory::Scratch => &mut self.scratch_bytes,
                RegionMemory::Cache => &mut self.cache_bytes,
            };
            self.regions.push(Region { name, shape, memory, offset_bytes: *end });
            *end += bytes.next_multiple_of(ALIGNMENT);
        }
        Ok(())
    }

    /// The tensor of a name.
    pub(crate) fn region(&self, name: &str) -> Region {
        let found = self.regions.iter().find(|region| region.name == name);
        *found.expect("a step that was checked reads what an earlier one writes")
    }
}

/// The grid of a caller's kernel: one dispatch, as it is asked for; none where the tensor is empty.
fn own_dispatch(step: &KernelStep, caps: &DeviceCaps) -> Result<Dispatch> {
    fit_bindings(caps, &[step.shape])?;
    let (needed, available) = (step.variant.num_storage_buffers(), caps.max_storage_buffers);
    if needed > available {
        let limit = "max_storage_buffers_per_shader_stage (kernel of a step)";
        return Err(Error::Limit { limit, needed: needed.into(), available: available.into() });
    }
    let asked = if step.shape.contains(&0) { [0; 3] } else { step.workgroups };
    let workgroups = caps.fit_grid(asked.map(u64::from))?;
    let stretch = Stretch { first: 0, end: workgroups[0], workgroups, first_tile: 0 };
    Ok(Dispatch { specialization: step.variant.clone(), workgroups, stretches: vec![stretch] })
}
