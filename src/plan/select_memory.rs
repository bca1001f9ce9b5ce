//! The memory that a selection needs.

use super::SelectionPlan;
use crate::SelectionMethod;
use crate::kernels::search_tree;

const ALIGNMENT: u64 = 256; // the largest that a device may ask for

impl SelectionPlan {
    /// What samples are multiplied by. Matrices take queries as they are, which f16 holds, or the other way round: only the sign of the
    /// scale decides the order. A scale of 0 makes all scores equal.
    pub(crate) fn sample_scale(&self) -> f32 {
        let scale = self.problem.selection_scale();
        if self.matrix.is_none() || scale == 0.0 { scale } else { 1.0f32.copysign(scale) }
    }

    /// Bytes of memory for samples of the queries. Calls encoded one after another may share it.
    #[must_use]
    pub fn samples_bytes(&self) -> u64 {
        self.samples.last().map_or(0, |last| (last.offset_bytes + last.size_bytes).next_multiple_of(ALIGNMENT))
    }

    /// Bytes of scratch memory: scores, and the groups of running searches. Calls encoded one after another may share it.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        match &self.problem.method {
            SelectionMethod::Hip(hip) => {
                let keys_per_block = u64::from(hip.block_size_k / hip.stride_k);
                let words = search_tree::scratch_words(hip.max_blocks().into(), keys_per_block);
                // Beams in workgroup memory need none.
                let in_workgroup =
                    self.dispatches.iter().any(|search| search.specialization.constant("CANDIDATES").is_some());
                if in_workgroup { 0 } else { 4 * u64::from(self.num_searches) * words }
            }
            SelectionMethod::InfiniteHip(_) => {
                let chunks = self.stages.iter().map(|stage| u64::from(stage.max_chunks)).max().unwrap_or(0);
                4 * self.num_lists() * u64::from(self.lists_per_set) * chunks
            }
        }
    }

    /// Bytes of memory for what the stages keep. Its contents are used by later steps that compute later stages only, so
    /// that each layer needs its own.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        let marks = if self.is_union() { self.num_lists() } else { 0 };
        self.stages.last().map_or(0, |last| 4 * (last.marks + marks * u64::from(last.max_chunks)))
    }
}
