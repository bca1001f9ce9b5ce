//! What each workgroup of a selection costs, in operations of [`DispatchBudget`]. Probes of keys lie far apart, so that each
//! is fetched. A list is one workgroup's: no list is cut, since its cost grows with the logarithm of the keys, or with
//! its chunks, of which no number is more than a step of a descent.

use super::{Samples, SelectionPlan};
use crate::DispatchBudget;

/// Operations of a radix select over so many candidates: four passes for the threshold, two for the compaction.
pub(in crate::plan) fn top_k_operations(candidates: u64) -> u64 {
    6 * candidates * DispatchBudget::FETCH
}

impl SelectionPlan {
    /// Operations of one key against the samples of a set's heads.
    pub(super) fn probe_operations(&self, samples: &Samples, heads: u32) -> u64 {
        let shape = &self.problem.shape;
        let kv_heads = u64::from(heads.div_ceil(shape.group_size()));
        let products = u64::from(heads) * u64::from(samples.num_samples);
        u64::from(shape.head_dim) * (products + kv_heads * DispatchBudget::FETCH)
    }
}
