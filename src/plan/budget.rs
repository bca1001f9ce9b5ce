//! How much a dispatch may compute, so that none runs long enough to trip a watchdog.

/// What a device computes in about 100 ms, in *operations*: multiply-adds, where fetching a number counts as
/// [`FETCH`](Self::FETCH) of them. Plans cut their grids into [`Stretch`](crate::Stretch)es that stay within it; no cut
/// changes a result.
///
/// ```no_run
/// # fn open() -> wattn::Result<()> {
/// let context = wattn::Context::request_blocking(&wattn::ContextOptions::default())?; // a guess by kind of device
/// let budget = context.calibrate_blocking()?; // measured, in some 50 ms
/// let context = context.with_budget(budget);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DispatchBudget {
    dispatch: u64,
    workgroup: u64,
}

impl DispatchBudget {
    /// Operations that fetching one number from memory counts as, for all rows of a workgroup that use it. GPUs and
    /// software devices alike compute several dozen multiply-adds in the time that an uncached number takes.
    pub const FETCH: u64 = 32;

    /// Workgroups below so many operations are never cut on a calibrated device: 22000 keys for 16 rows of width 128,
    /// some 50 ms on the slowest cores known. Whether workgroups are cut at all must not depend on a clock.
    pub const LEAST_WORKGROUP: u64 = 1 << 28;

    /// No grid is cut.
    pub const UNLIMITED: Self = Self { dispatch: u64::MAX, workgroup: u64::MAX };

    /// A device of unknown kind: 50 G multiply-adds a second, as integrated GPUs reach.
    pub const DEFAULT: Self = Self { dispatch: 10_000_000_000, workgroup: Self::LEAST_WORKGROUP };

    /// A GPU with memory of its own: ten times that, as the smallest of them reach.
    pub(crate) const DISCRETE: Self = Self { dispatch: 100_000_000_000, workgroup: 1_000_000_000 };

    /// Two cores of a CPU.
    pub(crate) const SOFTWARE: Self = Self { dispatch: 2_000_000_000, workgroup: Self::LEAST_WORKGROUP };

    /// A budget by numbers, for tests and for devices that are known: operations of a dispatch, and of the part of a
    /// workgroup that runs in one dispatch. At least 1 each; a workgroup's are at most a dispatch's.
    #[must_use]
    pub const fn new(dispatch: u64, workgroup: u64) -> Self {
        let dispatch = if dispatch == 0 { 1 } else { dispatch };
        let workgroup = if workgroup == 0 { 1 } else { workgroup };
        Self { dispatch, workgroup: if workgroup < dispatch { workgroup } else { dispatch } }
    }

    /// What is assumed of a device before it is calibrated.
    pub(crate) const fn of_kind(kind: wgpu::DeviceType) -> Self {
        match kind {
            wgpu::DeviceType::DiscreteGpu => Self::DISCRETE,
            wgpu::DeviceType::Cpu => Self::SOFTWARE,
            wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => Self::DEFAULT,
        }
    }

    /// Operations of one dispatch.
    #[must_use]
    pub const fn dispatch_operations(&self) -> u64 {
        self.dispatch
    }

    /// Operations of one workgroup within one dispatch.
    #[must_use]
    pub const fn workgroup_operations(&self) -> u64 {
        self.workgroup
    }
}
