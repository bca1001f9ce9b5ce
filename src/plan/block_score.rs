//! Scores of blocks of keys by their summaries: one dispatch.

use std::collections::BTreeMap;

use super::modules::{elem_module, share_modules};
use super::operator::{OneDispatch, fit_bindings};
use super::{Dispatch, OperatorPlan};
use crate::kernels::{self, modules};
use crate::shader::{Specialization, Taken};
use crate::{BlockScoreProblem, DeviceCaps, DispatchBudget, MASKED_SCORE, Mask, Reduction, Result, Tier};

/// The dispatch that computes a [`BlockScoreProblem`] on a device.
pub type BlockScorePlan = OperatorPlan<BlockScoreProblem>;

/// Invocations of a workgroup: on a software device each one costs time.
const fn workgroup_size(caps: &DeviceCaps) -> u32 {
    if caps.software { 16 } else { 128 }
}

impl OneDispatch for BlockScoreProblem {
    const NAME: &'static str = "blockscore";

    fn dispatch(&self, caps: &DeviceCaps, tier: Tier) -> Result<Dispatch> {
        self.validate()?;
        fit_bindings(caps, &[self.summaries_shape(), self.scores_shape()])?;
        let head_dim4 = self.shape.head_dim / 4;
        // Whole subgroups, of which a group is one or a part. Two vec4 of a vector for each lane, where that leaves enough lanes.
        let (most_lanes, whole) = match (tier.subgroup(), &caps.subgroup_size) {
            (true, Some(size)) => (*size.start(), *size.end()),
            _ => (16, 16),
        };
        let lanes = head_dim4.div_ceil(2).next_power_of_two().min(most_lanes).max(1);
        let size = workgroup_size(caps).max(whole).min(caps.max_invocations_per_workgroup);
        let groups = size / lanes;
        let (share, reduce) = share_modules(lanes, tier, caps);
        let specialization = Specialization {
            kernel: &kernels::SCORE_BLOCKS,
            modules: Taken::all([
                &modules::STRETCH,
                modules::lengths(self.seq_lens_kv),
                &modules::NON_FINITE,
                elem_module(self.dtype, tier, caps),
                share,
                reduce,
            ]),
            constants: BTreeMap::from([
                ("COLS", head_dim4.div_ceil(lanes)),
                ("GROUPS", groups),
                ("HEAD_DIM4", head_dim4),
                ("LANES", lanes),
                ("MASKED_BITS", MASKED_SCORE.to_bits()),
                ("NUM_VECTORS", self.scoring.num_vectors()),
                ("REDUCED", 1),
                ("REDUCE_STRIDE", lanes + 1),
                ("SHARE", 1),
                ("WORKGROUP_SIZE", lanes * groups),
            ]),
            switches: BTreeMap::from([
                ("CAUSAL_BLOCKS", self.mask == Mask::Causal),
                ("ROWS_MAX", self.rows == Reduction::Max),
                ("ROWS_MEAN", self.rows == Reduction::Mean),
                ("HEADS_MAX", self.heads == Reduction::Max),
                ("HEADS_MEAN", self.heads == Reduction::Mean),
            ]),
            arrays: crate::plan::arrays_of(caps),
            chain: Vec::new(),
        };
        let places = self.scores_shape().iter().map(|&axis| u64::from(axis)).product::<u64>();
        let scores = u64::from(self.granularity.heads_per_set(&self.shape)) * u64::from(self.block_size_q);
        let operations = u64::from(groups) * u64::from(self.shape.head_dim) * scores * DispatchBudget::FETCH;
        Dispatch::even(specialization, places.div_ceil(groups.into()), operations, caps)
    }
}
