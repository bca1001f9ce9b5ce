//! CPU twin of `attend_prefill.wgsl`.

use super::attend_rows::Call;
use super::find_exponents::Scaled;
use super::modify::add_sink;
use crate::{AttentionOutput, AttentionPlan, Element, HostInputs, HostTensor, Result};

/// CPU twin of the kernel `attend_prefill`: all keys in one walk, however many splits the plan has.
///
/// # Errors
/// The errors of [`HostInputs::validate`].
pub fn attend_prefill<T: Element>(plan: &AttentionPlan, inputs: &HostInputs<'_, T>) -> Result<AttentionOutput> {
    let call = Call::new(plan, inputs)?;
    let Some(scaled) = Scaled::new(plan, inputs)? else { return Ok(attend(&call)) };
    Ok(attend(&Call { plan, inputs: &scaled.inputs(inputs), scaled: Some(&scaled) }))
}

fn attend<T: Element>(call: &Call<'_, T>) -> AttentionOutput {
    let shape = call.plan.problem().shape();
    let mut out = HostTensor::zeros(call.plan.problem().out_shape());
    let mut lse = HostTensor::zeros(call.plan.problem().lse_shape());
    let mut row_out = vec![0.0; shape.head_dim_v as usize];
    for tile in call.tiles() {
        for row in tile.rows.clone() {
            let [q_index, head] = call.place(&tile, row);
            let at = ((tile.batch * shape.seq_len_q + q_index) * shape.num_q_heads + head) as usize;
            let row_lse = call.attend_row(&tile, row, &mut row_out);
            add_sink(call.plan.problem(), call.inputs, head, row_lse, &mut row_out);
            lse.data_mut()[at] = row_lse;
            out.data_mut()[at * row_out.len()..][..row_out.len()].copy_from_slice(&row_out);
        }
    }
    AttentionOutput { out, lse }
}
