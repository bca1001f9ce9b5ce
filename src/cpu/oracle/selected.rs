//! Block-sparse attention by its definition, in f64.

use crate::{AttentionOutput, AttentionProblem, Element, Error, HostBlocks, HostInputs, HostTensor, Result};

/// One row of [`attend_selected`]: `(out, lse)` in f64. For checking samples of a large problem.
///
/// # Panics
/// When an index is out of range, or inputs or lists were not validated.
#[must_use]
pub fn attend_selected_row<T: Element>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    blocks: &HostBlocks,
    batch: u32,
    q_index: u32,
    q_head: u32,
) -> (Vec<f64>, f64) {
    super::row(problem, inputs, Some(blocks), [batch, q_index, q_head])
}

/// Block-sparse attention by its definition, every sum in f64.
///
/// # Errors
/// Those of [`HostInputs::validate`] and [`HostBlocks::validate`]; [`Error::Argument`] where the problem takes no lists.
pub fn attend_selected<T: Element>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    blocks: &HostBlocks,
) -> Result<AttentionOutput> {
    inputs.validate(problem)?;
    let shape = problem.shape();
    let Some(selection) = &problem.blocks else {
        return Err(Error::Argument { argument: "blocks", rule: "the problem must take lists of selected blocks" });
    };
    blocks.validate(selection, shape, inputs.seq_lens_kv)?;
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    for batch in 0..shape.batch_size {
        for q_index in 0..shape.seq_len_q {
            for q_head in 0..shape.num_q_heads {
                let (row, row_lse) = attend_selected_row(problem, inputs, blocks, batch, q_index, q_head);
                out.extend(row.into_iter().map(|x| x as f32));
                lse.push(row_lse as f32);
            }
        }
    }
    Ok(AttentionOutput { out: HostTensor::new(shape.out(), out)?, lse: HostTensor::new(shape.lse(), lse)? })
}
