//! Selection by its definition, in f64.

use crate::{Element, HostBlocks, Result, SelectionInputs, SelectionProblem};

/// What one list came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// HiP: the groups `(first block, blocks)` that each round begins with.
    pub rounds: Vec<Vec<(u32, u32)>>,
    /// InfiniteHiP: the first keys of the chunks that survive each stage, ascending.
    pub survivors: Vec<Vec<u32>>,
}

/// Selection by its definition.
///
/// # Errors
/// Those of [`SelectionInputs::validate`].
pub fn select<T: Element>(problem: &SelectionProblem, inputs: &SelectionInputs<'_, T>) -> Result<HostBlocks> {
    Ok(select_traced(problem, inputs)?.0)
}

/// [`select`], and how each list came about, `[batch, set, q_block]`.
///
/// # Errors
/// Those of [`select`].
pub fn select_traced<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
) -> Result<(HostBlocks, Vec<Trace>)> {
    inputs.validate(problem)?;
    unimplemented!()
}
