//! Block-sparse attention by its definition, in f64.

use crate::{AttentionOutput, AttentionProblem, Element, HostBlocks, HostInputs, Result};

/// The keys that a row attends to, ascending, each once.
#[must_use]
pub fn attended_keys(
    _problem: &AttentionProblem,
    _seq_len_kv: u32,
    _blocks: &HostBlocks,
    _batch: u32,
    _q_index: u32,
    _q_head: u32,
) -> Vec<u32> {
    unimplemented!()
}

/// One row of [`attend_selected`]: `(out, lse)` in f64.
#[must_use]
pub fn attend_selected_row<T: Element>(
    _problem: &AttentionProblem,
    _inputs: &HostInputs<'_, T>,
    _blocks: &HostBlocks,
    _batch: u32,
    _q_index: u32,
    _q_head: u32,
) -> (Vec<f64>, f64) {
    unimplemented!()
}

/// Block-sparse attention by its definition.
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
