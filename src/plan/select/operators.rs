//! A method made of operators on a device: the dispatches of their plans, one after the other.

use super::memory::ALIGNMENT;
use super::{SelectStep, SelectionPlan};
use crate::plan::OneDispatch;
use crate::problem::checked_steps;
use crate::{DeviceCaps, Result, Selector, SelectorStep};

/// A tensor in f32 that one step writes and later ones read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) name: &'static str,
    pub(crate) shape: [u32; 4],
    /// In the memory of samples where it holds summaries, in scratch memory where it holds scores: no dispatch reads and writes the
    /// same buffer.
    pub(crate) offset_bytes: u64,
}

impl SelectionPlan {
    pub(super) fn plan_operators(&mut self, method: &dyn Selector, caps: &DeviceCaps) -> Result<()> {
        self.operators = checked_steps(&self.problem, method)?;
        for (index, step) in self.operators.clone().into_iter().enumerate() {
            let dispatch = match step {
                SelectorStep::Pool { problem, .. } => problem.dispatch(caps, self.tier)?,
                SelectorStep::Score { problem, .. } => problem.dispatch(caps, self.tier)?,
                SelectorStep::TopK { problem, .. } => problem.dispatch(caps, self.tier)?,
            };
            self.push(SelectStep::Operator(index), 0, dispatch);
            let Some((name, shape)) = step.written() else { continue };
            let bytes = 4 * shape.iter().map(|&axis| u64::from(axis)).product::<u64>(); // fits a binding: the step's plan saw
            let end = match step {
                SelectorStep::Pool { .. } => &mut self.summaries_bytes,
                _ => &mut self.scratch_bytes,
            };
            self.regions.push(Region { name, shape, offset_bytes: *end });
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
