//! The memory that a selection needs.

use super::SelectionPlan;

pub(super) const ALIGNMENT: u64 = 256; // the largest that a device may ask for

impl SelectionPlan {
    /// What samples are multiplied by. Matrices take queries as they are, which f16 holds, or the other way round: only the sign of the
    /// scale decides the order. A scale of 0 makes all scores equal.
    pub(crate) fn sample_scale(&self) -> f32 {
        let scale = self.problem.selection_scale();
        if self.matrix.is_none() || scale == 0.0 { scale } else { 1.0f32.copysign(scale) }
    }

    /// Bytes of memory for samples of the queries, or for summaries of keys. Calls encoded one after another may share it.
    #[must_use]
    pub fn samples_bytes(&self) -> u64 {
        self.samples
            .last()
            .map_or(self.summaries_bytes, |last| (last.offset_bytes + last.size_bytes).next_multiple_of(ALIGNMENT))
    }

    /// Bytes of scratch memory: scores, and the groups of running searches. Calls encoded one after another may share it.
    #[must_use]
    pub const fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes
    }

    /// Bytes of memory for what the stages keep. Its contents are used by later steps that compute later stages only, so
    /// that each layer needs its own.
    #[must_use]
    pub const fn cache_bytes(&self) -> u64 {
        self.cache_bytes
    }
}
