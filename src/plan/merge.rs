//! Merge of partial results: one dispatch.

use std::collections::BTreeMap;

use super::Dispatch;
use super::modules::out_module;
use super::sinks::sink_modules;
use crate::kernels::{self, modules};
use crate::shader::{Module, Specialization, Taken};
use crate::{DType, DeviceCaps, DispatchBudget, Error, MergeProblem, Result, Sinks};

/// Parts of a row that an invocation merges one after the other, if other invocations can share the work: their loads are in flight at once.
const PARTS_AT_ONCE: u32 = 4;
/// Limit on the invocations that share a row's parts: eight of a workgroup's then read neighbouring columns, 128 bytes.
const MOST_LANES: u32 = 32;

/// The sizes of a merge.
pub(super) struct Parts {
    pub(super) num_parts: u32,
    pub(super) num_rows: u64,
    pub(super) head_dim_v: u32,
}

impl Parts {
    /// Number of invocations that share the parts of four columns of a row. A software device has no invocations to spare.
    fn lanes(&self, caps: &DeviceCaps) -> u32 {
        if caps.software {
            return 1;
        }
        self.num_parts.div_ceil(PARTS_AT_ONCE).next_power_of_two().min(MOST_LANES)
    }

    /// The variant of `merge_splits` that writes with the module `out`.
    fn specialize(&self, out: &'static Module, lse: bool, sinks: Option<Sinks>, caps: &DeviceCaps) -> Specialization {
        let of_sinks = sink_modules(sinks);
        let lanes = self.lanes(caps);
        let (join, workgroup_size) = if lanes == 1 { (&modules::JOIN_ALONE, 64) } else { (&modules::JOIN_LANES, 256) };
        let at_once = if caps.software { 1 } else { self.num_parts.clamp(1, PARTS_AT_ONCE) };
        Specialization {
            kernel: &kernels::MERGE_SPLITS,
            modules: of_sinks
                .into_iter()
                .chain(Taken::all([
                    &modules::MERGE_PARAMS,
                    &modules::STRETCH,
                    &modules::NON_FINITE,
                    out,
                    join,
                    modules::lse(lse),
                ]))
                .collect(),
            constants: BTreeMap::from([
                ("HEAD_DIM_V4", self.head_dim_v / 4),
                ("PART_LANES", lanes),
                ("PARTS_AT_ONCE", at_once),
                ("WORKGROUP_SIZE", workgroup_size.min(caps.max_invocations_per_workgroup)),
            ]),
            switches: BTreeMap::new(),
            arrays: super::arrays_of(caps),
            chain: Vec::new(),
        }
    }

    /// The dispatch of the merge.
    pub(super) fn dispatch(
        &self,
        out: &'static Module,
        lse: bool,
        sinks: Option<Sinks>,
        caps: &DeviceCaps,
    ) -> Result<Dispatch> {
        let specialization = self.specialize(out, lse, sinks, caps);
        let size = u64::from(specialization.constants["WORKGROUP_SIZE"]);
        let items = self.num_rows * u64::from(self.head_dim_v / 4);
        let workgroups = items.div_ceil(size / u64::from(self.lanes(caps)));
        // Fetches of each part's columns and lse.
        let parts_each = u64::from(self.num_parts.div_ceil(self.lanes(caps)));
        Dispatch::even(specialization, workgroups, size * parts_each * 5 * DispatchBudget::FETCH, caps)
    }
}

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
    /// The errors of [`MergeProblem::validate`], and [`Error::Limit`] when the parts pass a limit of the device.
    ///
    /// # Cost
    /// Arithmetic only.
    pub fn new(problem: &MergeProblem, caps: &DeviceCaps) -> Result<Self> {
        problem.validate()?;
        let rows = u64::from(problem.num_parts) * u64::from(problem.num_rows);
        let (needed, available) =
            (rows.saturating_mul(u64::from(problem.head_dim_v) * 4), caps.max_storage_binding_bytes);
        if needed > available {
            return Err(Error::Limit { limit: "max_storage_buffer_binding_size", needed, available });
        }
        let MergeProblem { num_parts, num_rows, head_dim_v } = *problem;
        let parts = Parts { num_parts, num_rows: num_rows.into(), head_dim_v };
        let dispatch = parts.dispatch(out_module(DType::F32, caps.best_tier()), true, None, caps)?;
        Ok(Self { problem: *problem, dispatch })
    }

    /// The dispatch.
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
