//! The features and limits of a device that planning depends on.

use core::ops::RangeInclusive;
use std::sync::Arc;

use crate::wanted::Offered;
use crate::{DeviceSpeed, DispatchBudget, Error, Result, Tuning};

/// Groups of optional device features that kernels use, best last. A plan takes the best tier that the device reports, and never looks
/// at its name; [`AttentionPlan::with_tier`](crate::AttentionPlan::with_tier) forces one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Tier {
    /// Plain WGSL within WebGPU's default limits, on every device; f16 is unpacked from `u32`.
    Baseline,
    /// Adds `SHADER_F16`: f16 tensors are loaded as `vec4<f16>`.
    F16,
    /// Adds subgroup operations: sums across invocations need no workgroup memory.
    Subgroup,
    /// Adds both features.
    SubgroupF16,
    /// `SHADER_F16` and cooperative matrices: f16 tensors are multiplied by matrix units and accumulated in f32. No subgroup operations:
    /// one known driver crashes on a shader with both.
    Matrix,
}

impl Tier {
    /// Every tier, best last.
    pub const ALL: [Self; 5] = [Self::Baseline, Self::F16, Self::Subgroup, Self::SubgroupF16, Self::Matrix];

    /// Whether kernels may use the WGSL type `f16`.
    #[must_use]
    pub const fn shader_f16(self) -> bool {
        matches!(self, Self::F16 | Self::SubgroupF16 | Self::Matrix)
    }

    /// Whether kernels may use subgroup operations.
    #[must_use]
    pub const fn subgroup(self) -> bool {
        matches!(self, Self::Subgroup | Self::SubgroupF16)
    }

    /// Whether kernels multiply matrices in hardware.
    #[must_use]
    pub const fn matrix(self) -> bool {
        matches!(self, Self::Matrix)
    }

    /// The name that the command line uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::F16 => "f16",
            Self::Subgroup => "subgroup",
            Self::SubgroupF16 => "subgroup-f16",
            Self::Matrix => "matrix",
        }
    }
}

impl core::fmt::Display for Tier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A shape of matrix product that the device has in hardware: `c[m, n] += a[m, k] b[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixTile {
    /// Rows of a and c.
    pub m: u32,
    /// Columns of b and c.
    pub n: u32,
    /// Columns of a, rows of b.
    pub k: u32,
    /// Element type of a and b.
    pub ab: wgpu::CooperativeScalarType,
    /// Element type of c.
    pub c: wgpu::CooperativeScalarType,
}

impl MatrixTile {
    /// The products that kernels use: square, f16 factors, f32 sums.
    #[must_use]
    pub const fn square(edge: u32) -> Self {
        let (ab, c) = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
        Self { m: edge, n: edge, k: edge, ab, c }
    }
}

/// The limits and features that plans depend on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeviceCaps {
    /// Bytes of workgroup memory a workgroup may declare.
    pub max_workgroup_storage_bytes: u32,
    /// Invocations of a workgroup.
    pub max_invocations_per_workgroup: u32,
    /// Workgroups along each axis of a dispatch.
    pub max_workgroups_per_dimension: u32,
    /// Storage buffers that one kernel may bind.
    pub max_storage_buffers: u32,
    /// Bytes of one storage binding.
    pub max_storage_binding_bytes: u64,
    /// Bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Alignment, in bytes, of the start of a storage binding.
    pub min_storage_offset_alignment: u32,
    /// The WGSL type `f16`.
    pub shader_f16: bool,
    /// The WGSL type `u64`: kernels for software devices load two f32 as one.
    pub shader_int64: bool,
    /// Range of subgroup sizes; `None` without subgroup operations.
    pub subgroup_size: Option<RangeInclusive<u32>>,
    /// The device has `EXPERIMENTAL_COOPERATIVE_MATRIX`.
    pub cooperative_matrix: bool,
    /// Matrix products in hardware. Empty on a [`Context`](crate::Context) made from a device alone, since only the adapter
    /// knows them, and on a device made without `EXPERIMENTAL_COOPERATIVE_MATRIX`.
    pub matrix_tiles: Vec<MatrixTile>,
    /// Whether matrices may be loaded from arrays of vec4, as SPIR-V allows; Metal wants arrays of scalars.
    pub matrix_from_vec4: bool,
    /// Why matrices are not used although the device reports them: a trial gave wrong products or failed. Set by
    /// [`Context::request`](crate::Context::request) and [`Context::check_matrices`](crate::Context::check_matrices);
    /// [`matrix_edge`](Self::matrix_edge) is then `None`.
    pub matrix_fault: Option<String>,
    /// GPU timestamps at the borders of a compute pass.
    pub timestamps: bool,
    /// The device is a software driver on the CPU's cores: it hides no latency of memory, and runs the lanes of a subgroup one after
    /// the other.
    pub software: bool,
    /// What one dispatch may compute: a guess by the kind of device, or what
    /// [`Context::calibrate_blocking`](crate::Context::calibrate_blocking) measured.
    pub budget: DispatchBudget,
    /// Rates of the device's memory and arithmetic: a guess by the kind of device, or what
    /// [`Context::measure_speed_blocking`](crate::Context::measure_speed_blocking) measured; `None` on software devices.
    pub speed: Option<DeviceSpeed>,
    /// The tier that [`with_tier`](Self::with_tier) set.
    pub(crate) tier: Option<Tier>,
    /// The tilings that [`with_tuning`](Self::with_tuning) set.
    pub(crate) tuning: Option<Arc<Tuning>>,
    /// What the adapter offers; `None`: nothing beyond these caps.
    pub(crate) offered: Option<Arc<Offered>>,
}

impl DeviceCaps {
    /// The caps of every WebGPU device: the default limits and no optional feature.
    pub const BASELINE: Self = Self {
        max_workgroup_storage_bytes: 16 << 10,
        max_invocations_per_workgroup: 256,
        max_workgroups_per_dimension: 65535,
        max_storage_buffers: 8,
        max_storage_binding_bytes: 128 << 20,
        max_buffer_bytes: 256 << 20,
        min_storage_offset_alignment: 256,
        shader_f16: false,
        shader_int64: false,
        subgroup_size: None,
        cooperative_matrix: false,
        matrix_tiles: Vec::new(),
        matrix_from_vec4: false,
        matrix_fault: None,
        timestamps: false,
        software: false,
        budget: DispatchBudget::DEFAULT,
        speed: Some(DeviceSpeed::INTEGRATED),
        tier: None,
        tuning: None,
        offered: None,
    };

    /// A grid of one dimension, folded into two where one axis does not hold it. Workgroups past the end do nothing.
    pub(crate) fn fold_grid(&self, workgroups: u64) -> [u64; 3] {
        let y = workgroups.div_ceil(u64::from(self.max_workgroups_per_dimension)).max(1);
        [workgroups.div_ceil(y), y, 1]
    }

    /// The grid, if every axis fits the device.
    pub(crate) fn fit_grid(&self, workgroups: [u64; 3]) -> Result<[u32; 3]> {
        let available = u64::from(self.max_workgroups_per_dimension);
        match workgroups.into_iter().find(|&needed| needed > available) {
            Some(needed) => Err(Error::Limit { limit: "max_compute_workgroups_per_dimension", needed, available }),
            None => Ok(workgroups.map(|needed| needed as u32)), // at most `available`, itself a u32
        }
    }

    /// The limits and features that `device` was created with, which may be fewer than its adapter offers.
    #[must_use]
    pub fn of(device: &wgpu::Device) -> Self {
        Self::from_parts(&device.limits(), device.features(), &device.adapter_info())
    }

    /// The caps of a device opened with all limits and features of `adapter`, as [`Context::request`] opens it. Opens nothing.
    ///
    /// [`Context::request`]: crate::Context::request
    #[must_use]
    pub fn of_adapter(adapter: &wgpu::Adapter) -> Self {
        Self::from_parts(&adapter.limits(), adapter.features(), &adapter.get_info()).with_adapter(adapter)
    }

    fn from_parts(limits: &wgpu::Limits, features: wgpu::Features, info: &wgpu::AdapterInfo) -> Self {
        Self {
            max_workgroup_storage_bytes: limits.max_compute_workgroup_storage_size,
            max_invocations_per_workgroup: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            max_storage_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            min_storage_offset_alignment: limits.min_storage_buffer_offset_alignment,
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            shader_int64: features.contains(wgpu::Features::SHADER_INT64),
            subgroup_size: features
                .contains(wgpu::Features::SUBGROUP)
                .then_some(info.subgroup_min_size..=info.subgroup_max_size),
            cooperative_matrix: features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
            matrix_tiles: Vec::new(),
            matrix_from_vec4: info.backend == wgpu::Backend::Vulkan,
            matrix_fault: None,
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            software: info.device_type == wgpu::DeviceType::Cpu,
            budget: DispatchBudget::of_kind(info.device_type),
            speed: DeviceSpeed::of_kind(info.device_type),
            tier: None,
            tuning: None,
            offered: Some(Arc::new(Offered::of_device(limits, info))),
        }
    }

    /// Adds the shapes of matrix products, which only the adapter reports, where the device has the feature.
    #[must_use]
    pub fn with_adapter(mut self, adapter: &wgpu::Adapter) -> Self {
        let tile = |p: wgpu::CooperativeMatrixProperties| MatrixTile {
            m: p.m_size,
            n: p.n_size,
            k: p.k_size,
            ab: p.ab_type,
            c: p.cr_type,
        };
        let tiles: Vec<MatrixTile> = adapter.cooperative_matrix_properties().into_iter().map(tile).collect();
        if self.cooperative_matrix {
            self.matrix_tiles.clone_from(&tiles);
        }
        self.offered = Some(Arc::new(Offered::of_adapter(adapter, tiles)));
        self
    }

    /// Edge of the square matrices that kernels multiply (f16 factors, f32 sums), the larger of two. `None` where the device lacks them,
    /// where they were [found faulty](Self::matrix_fault), or where the size of subgroups varies: a matrix belongs to a subgroup, whose
    /// lanes must then be known.
    #[must_use]
    pub fn matrix_edge(&self) -> Option<u32> {
        self.reported_edge().filter(|_| self.matrix_fault.is_none())
    }

    /// [`matrix_edge`](Self::matrix_edge) of the reported shapes, found faulty or not.
    pub(crate) fn reported_edge(&self) -> Option<u32> {
        let fixed = self.subgroup_size.as_ref().is_some_and(|size| size.start() == size.end());
        // Only shapes that WGSL has a type for: devices report others too.
        let has = |edge: u32| self.matrix_tiles.contains(&MatrixTile::square(edge));
        [16, 8].into_iter().find(|&edge| fixed && self.shader_f16 && has(edge))
    }

    /// The fault that keeps a plan from taking matrices, if it is the only reason.
    pub(crate) fn fault_behind(&self, takes_matrices: impl Fn(&Self) -> bool) -> Option<String> {
        let reason = self.matrix_fault.as_ref()?;
        (!takes_matrices(self) && takes_matrices(&Self { matrix_fault: None, ..self.clone() })).then(|| reason.clone())
    }

    /// [`matrix_edge`](Self::matrix_edge); the tier is one that multiplies matrices.
    pub(crate) fn edge_of(&self, tier: Tier) -> Option<u32> {
        self.matrix_edge().filter(|_| tier.matrix())
    }

    /// Whether f32 are loaded in pairs, as u64. A GPU loads a vec4 at once; a software device loads one element after the other, a wide
    /// element as fast as a narrow one. Tiers without subgroup operations stay plain WGSL.
    pub(crate) const fn loads_wide(&self, tier: Tier) -> bool {
        self.software && self.shader_int64 && tier.subgroup()
    }

    /// The same caps, with every plan held to this tier.
    #[must_use]
    pub const fn with_tier(mut self, tier: Tier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// The tier that plans are held to; `None` where each plan takes the best tier for its problem.
    #[must_use]
    pub const fn tier(&self) -> Option<Tier> {
        self.tier
    }

    /// The best tier that the device offers to every problem. Attention plans may take [`Tier::Matrix`] instead, see
    /// [`AttentionPlan::best_tier`](crate::AttentionPlan::best_tier). Where the driver chooses the subgroup size and it may be tiny, as
    /// Metal reports, groups would have to be as small; larger groups that use workgroup memory are faster.
    #[must_use]
    pub fn best_tier(&self) -> Tier {
        let subgroup = self.subgroup_size.as_ref().is_some_and(|size| size.start() == size.end() || *size.start() >= 8);
        match (subgroup, self.shader_f16) {
            (false, false) => Tier::Baseline,
            (false, true) => Tier::F16,
            (true, false) => Tier::Subgroup,
            (true, true) => Tier::SubgroupF16,
        }
    }

    /// Checks that the device offers `tier`.
    ///
    /// # Errors
    /// [`Error::MissingFeature`] with the feature that the device was created without; [`Error::FaultyFeature`] with a feature that
    /// failed its trial.
    pub fn require(&self, tier: Tier) -> Result<()> {
        let missing = |feature| Err(Error::MissingFeature { needed_for: tier.name(), feature });
        if tier.shader_f16() && !self.shader_f16 {
            return missing("SHADER_F16");
        }
        if tier.subgroup() && self.subgroup_size.is_none() {
            return missing("SUBGROUP");
        }
        if tier.matrix() && self.reported_edge().is_none() {
            return missing("EXPERIMENTAL_COOPERATIVE_MATRIX (square products of f16 into f32, subgroups of one size)");
        }
        match &self.matrix_fault {
            Some(reason) if tier.matrix() => Err(Error::FaultyFeature {
                needed_for: tier.name(),
                feature: "EXPERIMENTAL_COOPERATIVE_MATRIX",
                reason: reason.clone(),
            }),
            _ => Ok(()),
        }
    }
}
