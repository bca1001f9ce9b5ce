//! Selection of key blocks on the CPU.

use crate::{Element, HostBlocks, Result, SelectionInputs, SelectionProblem};

/// What the stages of a selection keep from one decode step to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageCache {
    _survivors: Vec<u32>,
}

/// Selects blocks for every query block.
///
/// # Errors
/// Those of [`SelectionInputs::validate`].
pub fn select<T: Element>(problem: &SelectionProblem, inputs: &SelectionInputs<'_, T>) -> Result<HostBlocks> {
    select_from(problem, inputs, 0, &mut StageCache::default())
}

/// [`select`] from stage `first_stage` on, with what the stages before it kept in an earlier call.
///
/// # Errors
/// Those of [`select`].
pub fn select_from<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
    first_stage: usize,
    cache: &mut StageCache,
) -> Result<HostBlocks> {
    inputs.validate(problem)?;
    let _ = (first_stage, cache);
    unimplemented!()
}
