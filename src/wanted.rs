//! The features and limits that a caller's own device should be opened with, and the better tier missed without them.

use core::ops::RangeInclusive;

use crate::{DeviceCaps, MatrixTile, Tier};

/// The stable wgpu features of `adapter` that make kernels faster: f16 and subgroup operations in shaders, u64 (on software devices),
/// and compiled pipelines in a file. Add your own.
///
/// Cooperative matrices are experimental in wgpu: callers who want [`Tier::Matrix`] add
/// [`EXPERIMENTAL_COOPERATIVE_MATRIX`](wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) and say so in
/// [`experimental_features`](wgpu::DeviceDescriptor::experimental_features).
///
/// ```no_run
/// # async fn open(adapter: wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
/// let descriptor = wgpu::DeviceDescriptor {
///     required_features: wattn::wanted_features(&adapter), // | what the program needs
///     required_limits: wattn::wanted_limits(&adapter),
///     ..Default::default()
/// };
/// let (device, queue) = adapter.request_device(&descriptor).await?;
/// let context = wattn::Context::with_adapter(&adapter, device, queue)?;
/// println!("{} tier", context.caps().best_tier());
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn wanted_features(adapter: &wgpu::Adapter) -> wgpu::Features {
    let mut wanted = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP | wgpu::Features::PIPELINE_CACHE;
    if adapter.get_info().device_type == wgpu::DeviceType::Cpu {
        wanted |= wgpu::Features::SHADER_INT64;
    }
    wanted & adapter.features()
}

/// WebGPU's default limits, except those that plans depend on, which are as large as `adapter` allows. A binding holds one tensor, so
/// the binding size is the first limit that a large problem meets.
#[must_use]
pub fn wanted_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
    let (defaults, there) = (wgpu::Limits::default(), adapter.limits());
    wgpu::Limits {
        max_buffer_size: there.max_buffer_size,
        max_storage_buffer_binding_size: there.max_storage_buffer_binding_size,
        max_storage_buffers_per_shader_stage: there.max_storage_buffers_per_shader_stage,
        max_compute_workgroup_storage_size: there.max_compute_workgroup_storage_size,
        max_compute_invocations_per_workgroup: there.max_compute_invocations_per_workgroup,
        max_compute_workgroup_size_x: there.max_compute_workgroup_size_x,
        max_compute_workgroups_per_dimension: there.max_compute_workgroups_per_dimension,
        ..defaults.clone()
    }
    .or_better_values_from(&defaults)
}

/// The features of an adapter, whatever the device was opened with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Offered {
    /// `None`: only the device is known, which does not report its adapter's features.
    features: Option<wgpu::Features>,
    subgroup_size: RangeInclusive<u32>,
    workgroup_storage_bytes: u32,
    matrix_tiles: Vec<MatrixTile>,
}

impl Offered {
    /// The features of the adapter, as far as a device reports them.
    pub(crate) fn of_device(limits: &wgpu::Limits, info: &wgpu::AdapterInfo) -> Self {
        Self {
            features: None,
            subgroup_size: info.subgroup_min_size..=info.subgroup_max_size,
            workgroup_storage_bytes: limits.max_compute_workgroup_storage_size,
            matrix_tiles: Vec::new(),
        }
    }

    pub(crate) fn of_adapter(adapter: &wgpu::Adapter, matrix_tiles: Vec<MatrixTile>) -> Self {
        let features = Some(adapter.features());
        Self { features, matrix_tiles, ..Self::of_device(&adapter.limits(), &adapter.get_info()) }
    }

    fn has(&self, feature: wgpu::Features) -> bool {
        self.features.is_none_or(|features| features.contains(feature))
    }
}

/// A tier better than the device's, and the reason why it is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissedTier {
    /// The tier.
    pub tier: Tier,
    /// The reason.
    pub reason: String,
}

impl core::fmt::Display for MissedTier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.tier, self.reason)
    }
}

impl DeviceCaps {
    /// The tiers beyond [`best_tier`](Self::best_tier), and [`Tier::Matrix`] where plans do not take it, each with the reason.
    #[must_use]
    pub fn missed_tiers(&self) -> Vec<MissedTier> {
        let better = Tier::ALL.into_iter().filter(|&tier| tier > self.best_tier());
        let lacking = better.filter_map(|tier| {
            let lacks = self.lacks(tier);
            let fault = self.matrix_fault.as_ref().filter(|_| tier.matrix() && lacks.is_empty());
            let reason = match (fault, lacks.as_slice()) {
                (Some(fault), _) => fault.clone(),
                (None, []) if tier.matrix() && self.matrix_edge().is_none() => {
                    "no square products of f16 into f32, or subgroups that vary in size".to_owned()
                }
                (None, []) => return None,
                (None, lacks) => self.reason(lacks),
            };
            Some(MissedTier { tier, reason })
        });
        lacking.collect()
    }

    /// The better tier that `best` would take if the device had been opened with all features of its adapter.
    pub(crate) fn missed(&self, f16: bool, best: impl Fn(&Self) -> Tier) -> Option<MissedTier> {
        let offered = self.offered.as_ref()?;
        let mut caps = Self { offered: None, ..self.clone() };
        // Tensors of other types gain nothing from matrices.
        caps.shader_f16 |= f16 && offered.has(wgpu::Features::SHADER_F16);
        if caps.subgroup_size.is_none() && offered.has(wgpu::Features::SUBGROUP) {
            caps.subgroup_size = Some(offered.subgroup_size.clone());
        }
        // Only the adapter reports the shapes of products.
        caps.matrix_tiles.clone_from(&offered.matrix_tiles);
        caps.cooperative_matrix |= !offered.matrix_tiles.is_empty();
        caps.max_workgroup_storage_bytes = offered.workgroup_storage_bytes.max(caps.max_workgroup_storage_bytes);
        let tier = best(&caps);
        if tier <= best(self) {
            return None;
        }
        let lacks = self.lacks(tier);
        let reason = if lacks.is_empty() {
            format!(
                "device opened with {} of {} bytes of workgroup memory",
                self.max_workgroup_storage_bytes, caps.max_workgroup_storage_bytes
            )
        } else {
            self.reason(&lacks)
        };
        Some(MissedTier { tier, reason })
    }

    /// The features that a tier needs and the device was opened without.
    fn lacks(&self, tier: Tier) -> Vec<(&'static str, wgpu::Features)> {
        let needed = [
            ("SHADER_F16", wgpu::Features::SHADER_F16, tier.shader_f16() && !self.shader_f16),
            ("SUBGROUP", wgpu::Features::SUBGROUP, (tier.subgroup() || tier.matrix()) && self.subgroup_size.is_none()),
            (
                "EXPERIMENTAL_COOPERATIVE_MATRIX",
                wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
                tier.matrix() && !self.cooperative_matrix && self.matrix_tiles.is_empty(),
            ),
        ];
        needed.into_iter().filter(|(.., lacking)| *lacking).map(|(name, feature, _)| (name, feature)).collect()
    }

    /// Whether the adapter lacks the features, or the device was opened without them.
    fn reason(&self, lacks: &[(&'static str, wgpu::Features)]) -> String {
        let names = |lacks: &[(&'static str, wgpu::Features)]| {
            lacks.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        };
        let Some(offered) = &self.offered else { return format!("no {}", names(lacks)) };
        let there: Vec<_> = lacks.iter().copied().filter(|&(_, feature)| offered.has(feature)).collect();
        match (&offered.features, there.len() == lacks.len()) {
            (None, _) => format!("device opened without {}, which the adapter may have", names(lacks)),
            (Some(_), true) => format!("device opened without {}", names(lacks)),
            (Some(_), false) => {
                let lacks: Vec<_> = lacks.iter().copied().filter(|&(_, feature)| !offered.has(feature)).collect();
                format!("the adapter has no {}", names(&lacks))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A device of an adapter that has f16, subgroups of 32 and matrices, opened without features.
    fn bare(features: Option<wgpu::Features>) -> DeviceCaps {
        let mut caps = DeviceCaps::BASELINE;
        let matrix_tiles = if features.is_some() { vec![MatrixTile::square(16)] } else { vec![] };
        let offered = Offered { features, subgroup_size: 32..=32, workgroup_storage_bytes: 48 << 10, matrix_tiles };
        caps.offered = Some(Arc::new(offered));
        caps
    }

    #[test]
    fn what_was_left_out_is_told() {
        let all =
            wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let missed = |caps: &DeviceCaps, f16| caps.missed(f16, DeviceCaps::best_tier).map(|missed| missed.to_string());
        let told = |text: &str| Some(text.to_owned());
        assert_eq!(missed(&bare(Some(all)), true), told("subgroup-f16: device opened without SHADER_F16, SUBGROUP"));
        assert_eq!(missed(&bare(Some(all)), false), told("subgroup: device opened without SUBGROUP"));
        let unknown = "subgroup: device opened without SUBGROUP, which the adapter may have";
        assert_eq!(missed(&bare(None), false), told(unknown));
        assert_eq!(missed(&bare(Some(wgpu::Features::empty())), true), None);
        assert_eq!(missed(&DeviceCaps::BASELINE, true), None);
        let mut half = bare(Some(all));
        half.subgroup_size = Some(32..=32);
        assert_eq!(missed(&half, false), None);
        assert_eq!(missed(&half, true), told("subgroup-f16: device opened without SHADER_F16"));
    }

    #[test]
    fn every_better_tier_has_its_reason() {
        let all = |caps: &DeviceCaps| caps.missed_tiers().iter().map(MissedTier::to_string).collect::<Vec<_>>();
        let mut caps = bare(Some(wgpu::Features::SUBGROUP));
        caps.subgroup_size = Some(32..=32);
        let lacks = [
            "subgroup-f16: the adapter has no SHADER_F16",
            "matrix: the adapter has no SHADER_F16, EXPERIMENTAL_COOPERATIVE_MATRIX",
        ];
        assert_eq!(all(&caps), lacks);
        (caps.shader_f16, caps.cooperative_matrix, caps.matrix_tiles) = (true, true, vec![MatrixTile::square(16)]);
        assert_eq!(all(&caps), Vec::<String>::new());
        caps.matrix_fault = Some("shifted".to_owned());
        assert_eq!(all(&caps), ["matrix: shifted"]);
        caps.subgroup_size = Some(8..=32);
        caps.matrix_fault = None;
        assert_eq!(all(&caps), ["matrix: no square products of f16 into f32, or subgroups that vary in size"]);
    }
}
