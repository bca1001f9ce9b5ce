//! The number of keys from which selection and sparse attention are faster than dense attention.

use crate::{
    AttentionPlan, AttentionProblem, AttentionShape, DeviceCaps, DeviceSpeed, Result, SelectionPlan, SelectionProblem,
};

/// Crossovers are multiples of this many keys.
const STEP: u32 = 1024;

/// Number of queries that stand for a prompt: at the end of the keys, enough to fill a device, and all see nearly all keys.
const MOST_QUERIES: u32 = 1024;

impl SelectionPlan {
    /// The number of keys up to which dense attention takes no longer than a selection at every step and attention to its lists. With
    /// [`DeviceCaps::speed`] it compares [`AttentionPlan::estimated_time`] and [`SelectionPlan::estimated_time`] of the plans for each
    /// length, in steps of 1024 keys; on software devices, which have no speed, it is the measured
    /// [`SelectionMethod::crossover`](crate::SelectionMethod::crossover). `seq_len_kv` of the problem is ignored.
    /// [`AttentionProblem::MAX_SEQ_LEN`] where dense attention is never slower.
    ///
    /// # Errors
    /// The errors of [`SelectionPlan::new`] and [`AttentionPlan::new`] for the shortest length.
    ///
    /// # Cost
    /// Arithmetic: some forty plans.
    pub fn crossover(problem: &SelectionProblem, caps: &DeviceCaps) -> Result<u32> {
        let Some(speed) = caps.speed else {
            return Ok(problem.method().crossover(problem.shape().seq_len_q));
        };
        let pays = |steps: u32| sparse_is_faster(problem, caps, &speed, steps * STEP);
        let most = AttentionProblem::MAX_SEQ_LEN / STEP;
        // Doubles the length, then bisects.
        let (mut dense, mut sparse) = (0, 1);
        while !pays(sparse).or_else(|error| if sparse == 1 { Err(error) } else { Ok(false) })? {
            dense = sparse;
            sparse *= 2;
            if sparse > most {
                return Ok(AttentionProblem::MAX_SEQ_LEN);
            }
        }
        while sparse - dense > 1 {
            let middle = u32::midpoint(dense, sparse);
            if pays(middle)? {
                sparse = middle;
            } else {
                dense = middle;
            }
        }
        Ok(dense * STEP)
    }
}

fn sparse_is_faster(problem: &SelectionProblem, caps: &DeviceCaps, speed: &DeviceSpeed, keys: u32) -> Result<bool> {
    let mut selection = problem.clone().with_dense_below(0);
    let seq_len_q = selection.shape.seq_len_q.min(MOST_QUERIES);
    selection.shape = AttentionShape { seq_len_q, seq_len_kv: keys, ..selection.shape };
    let dense = AttentionProblem::new(selection.shape, selection.dtype).with_mask(selection.mask);
    let sparse = dense.clone().with_blocks(selection.blocks());
    let time = |problem| Ok::<_, crate::Error>(AttentionPlan::new(problem, caps)?.estimated_time(speed));
    let selecting = SelectionPlan::new(&selection, caps)?.estimated_time(speed);
    Ok(selecting + time(&sparse)? < time(&dense)?)
}
