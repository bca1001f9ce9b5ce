//! How to compute it here: pure functions of a problem and the device's caps. Runs without a GPU, prints as a table.

mod attend;
mod check;
mod merge;
mod select;
mod select_tiling;
mod select_view;
mod tiling;
mod tiling_matrix;

pub use attend::AttentionPlan;
pub use check::check_dispatches;
pub use merge::MergePlan;
pub use select::SelectionPlan;
pub(crate) use select::{Piece, Samples, StagePlan};
pub use select_tiling::SelectionTiling;
pub use tiling::Tiling;

use crate::kernels::KernelId;
use crate::shader::Specialization;
use crate::{DeviceCaps, Result};

/// One dispatch of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The variant of the kernel.
    pub specialization: Specialization,
    /// Workgroups along x, y and z. Nothing is encoded when one of them is 0.
    pub workgroups: [u32; 3],
}

impl Dispatch {
    fn new(specialization: Specialization, workgroups: [u64; 3], caps: &DeviceCaps) -> Result<Self> {
        Ok(Self { specialization, workgroups: caps.fit_grid(workgroups)? })
    }

    /// The kernel.
    #[must_use]
    pub const fn kernel(&self) -> KernelId {
        self.specialization.kernel()
    }
}

impl core::fmt::Display for Dispatch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [x, y, z] = self.workgroups;
        write!(f, "{:<15} {:<14} {}", self.kernel().name(), format!("{x}x{y}x{z}"), self.specialization)
    }
}
