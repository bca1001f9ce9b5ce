//! The memory that a selection needs.

use super::SelectionPlan;

pub(super) const ALIGNMENT: u64 = 256; // the largest alignment that a device may ask for

impl SelectionPlan {
    /// The factor on samples. Matrices take queries unscaled, since f16 holds those, or negated: only the sign of the scale affects the
    /// order. A scale of 0 makes all scores equal.
    pub(crate) fn sample_scale(&self) -> f32 {
        let scale = self.problem.selection_scale();
        if self.matrix.is_none() || scale == 0.0 { scale } else { 1.0f32.copysign(scale) }
    }

    /// Bytes of memory for samples of queries. Calls encoded one after another may share it.
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

    /// Bytes of memory for the stages' survivors. Later steps that compute only later stages read them, so each layer needs its own.
    #[must_use]
    pub const fn cache_bytes(&self) -> u64 {
        self.cache_bytes
    }
}
