//! Merge of partial results: one dispatch.

use super::Dispatch;
use super::attend::{merge_dispatch, specialize_merge};
use crate::{DType, DeviceCaps, Error, MergeProblem, Result};

/// The dispatch that computes a [`MergeProblem`] on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct MergePlan {
    pub(crate) problem: MergeProblem,
    pub(crate) dispatch: Dispatch,
}

impl MergePlan {
    /// Plans the merge. Parts and results are f32.
    ///
    /// # Errors
    /// What [`MergeProblem::validate`] returns, and [`Error::Limit`] when the parts pass a limit of the device.
    ///
    /// # Cost
    /// Arithmetic only.
    pub fn new(problem: &MergeProblem, caps: &DeviceCaps) -> Result<Self> {
        problem.validate()?;
        let rows = u64::from(problem.num_parts) * u64::from(problem.num_rows);
        let (needed, available) = (rows * u64::from(problem.head_dim_v) * 4, caps.max_storage_binding_bytes);
        if needed > available {
            return Err(Error::Limit { limit: "max_storage_buffer_binding_size", needed, available });
        }
        let specialization = specialize_merge(problem.head_dim_v, DType::F32, true, caps.best_tier());
        let parts_and_rows = [problem.num_parts, problem.num_rows].map(u64::from);
        let dispatch = merge_dispatch(specialization, parts_and_rows, problem.head_dim_v, caps)?;
        Ok(Self { problem: *problem, dispatch })
    }

    /// What is encoded.
    #[must_use]
    pub const fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }
}

impl core::fmt::Display for MergePlan {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let MergeProblem { num_parts, num_rows, head_dim_v } = self.problem;
        write!(f, "merge      {num_parts} parts of {num_rows} rows x {head_dim_v}\ndispatch   {}", self.dispatch)
    }
}
