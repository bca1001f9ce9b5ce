//! The best entries of rows of scores: one dispatch, a workgroup for each row.

use std::collections::BTreeMap;

use super::operator::{OneDispatch, fit_bindings};
use super::select::{add_top_k, bucket_bytes, top_k_operations};
use super::{Candidates, Dispatch, OperatorPlan};
use crate::kernels::{self, modules};
use crate::shader::{Specialization, Taken};
use crate::{DeviceCaps, MASKED_SCORE, Mark, PADDING, Result, Tier, TopKProblem};

/// The dispatch that computes a [`TopKProblem`] on a device.
pub type TopKPlan = OperatorPlan<TopKProblem>;

/// Invocations of a workgroup: on a software device each one costs time.
const fn workgroup_size(caps: &DeviceCaps) -> u32 {
    if caps.software { 16 } else { 256 }
}

impl OneDispatch for TopKProblem {
    const NAME: &'static str = "topk";

    fn dispatch(&self, caps: &DeviceCaps, _tier: Tier) -> Result<Dispatch> {
        // Software devices rank by digits, as they do in selections.
        planned(self, caps, if caps.software { Candidates::Scratch } else { Candidates::Workgroup })
    }
}

impl TopKPlan {
    /// Plans with the candidates in the given place, if it has room for them, for tests and tuning. The place changes no result.
    ///
    /// # Errors
    /// The errors of [`TopKPlan::new`].
    pub fn with_candidates(problem: &TopKProblem, caps: &DeviceCaps, candidates: Candidates) -> Result<Self> {
        Ok(Self { dispatch: planned(problem, caps, candidates)?, ..Self::new(problem, caps)? })
    }
}

/// The dispatch, with the candidates in workgroup memory where that is wanted and has room.
fn planned(problem: &TopKProblem, caps: &DeviceCaps, wanted: Candidates) -> Result<Dispatch> {
    problem.validate()?;
    fit_bindings(caps, &[problem.shape, problem.lists_shape()])?;
    let size = workgroup_size(caps).min(1 << caps.max_invocations_per_workgroup.max(1).ilog2());
    let entries = problem.shape[3].max(1);
    let storage = bucket_bytes(entries.min(Candidates::MOST_IN_WORKGROUP)) + 16;
    let fits = entries <= Candidates::MOST_IN_WORKGROUP && storage <= caps.max_workgroup_storage_bytes.into();
    let in_workgroup = (wanted == Candidates::Workgroup && fits).then_some(entries);
    let marks = if problem.marks { &modules::MARKS_GIVEN } else { &modules::MARKS_NONE };
    let mut specialization = Specialization {
        kernel: &kernels::SELECT_TOP_K,
        modules: Taken::all([&modules::STRETCH, &modules::SCORE_KEY, marks]),
        constants: BTreeMap::from([
            ("MARK_FORBIDDEN", Mark::Forbidden as u32),
            ("MARK_FORCED", Mark::Forced as u32),
            ("MASKED_BITS", MASKED_SCORE.to_bits()),
            ("PADDING", PADDING),
            ("WORKGROUP_SIZE", size),
        ]),
        switches: BTreeMap::from([("FORCED_LAST", problem.forced_last > 0)]),
        arrays: crate::plan::arrays_of(caps),
        chain: Vec::new(),
    };
    add_top_k(&mut specialization, in_workgroup, size);
    Dispatch::even(specialization, problem.num_rows(), top_k_operations(entries.into()), caps)
}
