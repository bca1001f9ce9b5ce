//! How a problem is computed on a device: pure functions of the problem and the device's caps. Runs without a GPU, prints as a table.

mod attend;
mod block_score;
mod budget;
mod check;
mod check_matrices;
mod crossover;
mod loads;
mod merge;
mod modules;
mod nearby;
mod operator;
mod pool;
mod select;
mod sinks;
mod speed;
mod stretch;
mod top_k;
mod tuned;

pub(crate) use attend::MODIFIER_PLACES;
pub use attend::{AttentionPlan, Sharing, Tiling};
pub use block_score::BlockScorePlan;
pub use budget::DispatchBudget;
pub use check::check_dispatches;
pub use check_matrices::MatrixCheck;
pub use loads::Loads;
pub use merge::MergePlan;
pub use nearby::TunedAt;
pub use operator::{OneDispatch, OperatorPlan};
pub use pool::PoolPlan;
pub use select::{Candidates, SelectionPlan, SelectionTiling};
pub(crate) use select::{Region, RegionMemory, Samples, SelectStep, StagePlan};

pub use speed::DeviceSpeed;
pub use stretch::Stretch;
pub use top_k::TopKPlan;
pub use tuned::{AttentionClass, MaskKind, MethodKind, SelectionClass, Tuning};

use stretch::{Costs, Parts};

use crate::shader::{Arrays, Kernel, Need, Specialization};
use crate::{DeviceCaps, Result};

/// One grid of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dispatch {
    /// The variant of the kernel.
    pub specialization: Specialization,
    /// Workgroups along x, y and z for all stretches together. Nothing is encoded when one of them is 0.
    pub workgroups: [u32; 3],
    /// The dispatches of the grid in order: it is cut where it exceeds the device's
    /// [`DispatchBudget`].
    pub stretches: Vec<Stretch>,
}

/// Where a device keeps the small arrays of an invocation.
const fn arrays_of(caps: &DeviceCaps) -> Arrays {
    if caps.software { Arrays::Memory } else { Arrays::Registers }
}

impl Dispatch {
    /// A grid with as many places as workgroups, each of which costs `operations`.
    fn even(specialization: Specialization, num_places: u64, operations: u64, caps: &DeviceCaps) -> Result<Self> {
        let costs = |num_places| Costs { num_places, most_tiles: 1, tile_operations: operations, tiles: |_| 1 };
        Self::cut(specialization, num_places, caps, |num_places| costs(num_places).cut(None, caps))
    }

    /// A grid with as many places as workgroups.
    fn cut(
        specialization: Specialization,
        num_places: u64,
        caps: &DeviceCaps,
        stretches: impl FnOnce(u32) -> Result<Vec<Stretch>>,
    ) -> Result<Self> {
        let workgroups = caps.fit_grid(caps.fold_grid(num_places))?;
        // Two axes of a grid that fits hold at most 65535^2 workgroups on any device.
        let num_places = u32::try_from(num_places).map_err(|_| crate::Error::TooLarge {
            what: "workgroups of a grid",
            needed: num_places,
            available: u32::MAX.into(),
        })?;
        Ok(Self { specialization, workgroups, stretches: stretches(num_places)? })
    }

    /// The kernel.
    #[must_use]
    pub const fn kernel(&self) -> &'static Kernel {
        self.specialization.kernel()
    }
}

impl core::fmt::Display for Dispatch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [x, y, z] = self.workgroups;
        let grid = match self.stretches.len() {
            0 | 1 => format!("{x}x{y}x{z}"),
            n => format!("{x}x{y}x{z} in {n}"),
        };
        // A feature that no browser has, and that no tier implies.
        let wide = if self.specialization.needs(Need::Int64) { ", f32 in pairs as u64" } else { "" };
        write!(f, "{:<15} {grid:<14} {}{wide}", self.kernel().name(), self.specialization)
    }
}

/// Replaces a constant in all kernels that have it.
fn replace_constant(dispatches: &mut [Dispatch], name: &str, value: u32) {
    for dispatch in dispatches {
        if let Some(constant) = dispatch.specialization.constants.get_mut(name) {
            *constant = value;
        }
    }
}
