//! The largest work of a dispatch, so that no dispatch runs long enough to trip a watchdog.

/// What a device computes in about 100 ms, in *operations*: multiply-adds, where fetching a number counts as
/// [`FETCH`](Self::FETCH) of them. Plans cut their grids into [`Stretch`](crate::Stretch)es that stay within it; no cut
/// changes a result.
///
/// ```no_run
/// # fn open() -> wattn::Result<()> {
/// let context = wattn::Context::request(&wattn::ContextOptions::default()).wait()?; // a guess by kind of device
/// let budget = context.calibrate_blocking()?; // measured, in some 50 ms
/// let context = context.with_budget(budget);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DispatchBudget {
    dispatch: u64,
    workgroup: u64,
    whole: u64,
}

impl DispatchBudget {
    /// Operations that fetching one number from memory counts as, once for all rows of the workgroup. GPUs and software devices alike
    /// compute several dozen multiply-adds in the time that an uncached number takes.
    pub const FETCH: u64 = 32;

    /// Workgroups of at most this many operations stay whole on every device: 11000 keys for 16 rows of width 128, some 50 ms on slow
    /// cores. Longer ones take a variant of the kernel that can be cut. The choice must not depend on a clock: compilers may round two
    /// variants differently.
    pub const LEAST_WORKGROUP: u64 = 1 << 27;

    /// Grids are not cut.
    pub const UNLIMITED: Self = Self::measured(u64::MAX, u64::MAX);

    /// A device of unknown kind: 50 G multiply-adds a second, as on integrated GPUs.
    pub const DEFAULT: Self = Self::measured(10_000_000_000, 300_000_000);

    /// A GPU with memory of its own: ten times as much, as on the smallest of them.
    pub(crate) const DISCRETE: Self = Self::measured(100_000_000_000, 1_000_000_000);

    /// Two cores of a CPU.
    pub(crate) const SOFTWARE: Self = Self::measured(2_000_000_000, 300_000_000);

    /// A budget given as numbers, for tests and known devices: operations of a dispatch, and of the part of a workgroup that runs in one
    /// dispatch. Both are at least 1, and the second is at most the first. Larger workgroups can be cut, however small they are.
    #[must_use]
    pub const fn new(dispatch: u64, workgroup: u64) -> Self {
        let measured = Self::measured(dispatch, workgroup);
        let Self { workgroup, whole, .. } = measured;
        Self { whole: if workgroup < whole { workgroup } else { whole }, ..measured }
    }

    /// The same, but small workgroups stay whole.
    pub(crate) const fn measured(dispatch: u64, workgroup: u64) -> Self {
        let dispatch = if dispatch == 0 { 1 } else { dispatch };
        let workgroup = if workgroup == 0 { 1 } else { workgroup };
        let workgroup = if workgroup < dispatch { workgroup } else { dispatch };
        Self { dispatch, workgroup, whole: Self::LEAST_WORKGROUP }
    }

    /// The assumed budget of a device before it is calibrated.
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

    /// Operations up to which a workgroup is never cut.
    #[must_use]
    pub const fn whole_operations(&self) -> u64 {
        self.whole
    }
}
