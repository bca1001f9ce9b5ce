//! What each workgroup of a selection costs, in operations of [`DispatchBudget`]. Probes of keys lie far apart, so that each
//! is fetched. A list is one workgroup's: no list is cut, since its cost grows with the logarithm of the keys, or with
//! its chunks, of which no number is more than a step of a descent.

use super::{Samples, SelectionPlan, StagePlan};
use crate::{DispatchBudget, Hip};

/// Operations of a radix select over so many candidates: four passes for the threshold, two for the compaction.
pub(super) fn top_k_operations(candidates: u64) -> u64 {
    6 * candidates * DispatchBudget::FETCH
}

impl SelectionPlan {
    /// Operations of one key against the samples of a set's heads.
    fn probe_operations(&self, samples: &Samples, heads: u32) -> u64 {
        let shape = &self.problem.shape;
        let kv_heads = u64::from(heads.div_ceil(shape.group_size()));
        let products = u64::from(heads) * u64::from(samples.num_samples);
        u64::from(shape.head_dim) * (products + kv_heads * DispatchBudget::FETCH)
    }

    /// Operations of one search for the blocks of a list.
    pub(super) fn search_operations(&self, hip: &Hip) -> u64 {
        let heads = self.problem.granularity.heads_per_set(&self.problem.shape);
        let candidates = 2 * u64::from(hip.max_blocks());
        let keys_per_block = u64::from(hip.block_size_k / hip.stride_k);
        // Groups are halved until they are single blocks; the alignment of the first may add a round.
        let blocks_per_group = self.problem.shape.seq_len_kv / hip.block_size_k / hip.max_blocks().max(1);
        let rounds = u64::from((blocks_per_group + 2).next_power_of_two().ilog2() + 1);
        let scores = candidates * keys_per_block * self.probe_operations(&self.samples[0], heads);
        rounds * (scores + top_k_operations(candidates))
    }

    /// Query heads that share a list of scores.
    pub(super) fn heads_of_list(&self) -> u32 {
        self.problem.granularity.heads_per_set(&self.problem.shape) / self.lists_per_set()
    }

    /// Operations of one descent into a chunk of a stage: two probes a round.
    pub(super) fn score_operations(&self, stage: &StagePlan) -> u64 {
        let heads = self.heads_of_list();
        let rounds = stage.rounds();
        // One head after the other: each fetches its keys itself.
        rounds * 2 * u64::from(heads) * self.probe_operations(&self.samples[stage.samples], 1)
    }
}

impl StagePlan {
    /// Rounds of a descent into a chunk.
    pub(super) fn rounds(&self) -> u64 {
        self.chunk_size.next_power_of_two().ilog2().max(1).into()
    }
}
