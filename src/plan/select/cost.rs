//! The cost of each workgroup of a selection, in operations of [`DispatchBudget`]. Probed keys lie far apart, so each counts as fetched. A
//! list is one workgroup's work and is not cut: HiP's cost grows with log(keys), a stage's with its chunks, a few operations each.

use super::{Samples, SelectionPlan};
use crate::DispatchBudget;

/// Operations of a radix select over `candidates`: four passes for the threshold, two for the compaction.
pub(in crate::plan) fn top_k_operations(candidates: u64) -> u64 {
    6 * candidates * DispatchBudget::FETCH
}

impl SelectionPlan {
    /// Operations of scoring one key with the samples of a set's heads.
    pub(super) fn probe_operations(&self, samples: &Samples, heads: u32) -> u64 {
        let shape = &self.problem.shape;
        let kv_heads = u64::from(heads.div_ceil(shape.group_size()));
        let products = u64::from(heads) * u64::from(samples.num_samples);
        u64::from(shape.head_dim) * (products + kv_heads * DispatchBudget::FETCH)
    }
}
