//! Block-sparse attention on the CPU.

use super::{AttentionOutput, HostInputs};
use crate::{AttentionProblem, Element, HostBlocks, Result};

/// Attention to selected blocks, sinks and window.
///
/// # Errors
/// Those of [`HostInputs::validate`] and [`HostBlocks::validate`].
pub fn attend_selected<T: Element>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    blocks: &HostBlocks,
) -> Result<AttentionOutput> {
    inputs.validate(problem)?;
    let _ = blocks;
    unimplemented!()
}
