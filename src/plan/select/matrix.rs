//! HiP's scores as matrix products: when selections use them, and the shader's sizes.

use std::collections::BTreeMap;

use super::{Candidates, SelectionTiling, Sharing};
use crate::kernels::modules;
use crate::plan::attend::matrix::{FLOATS_PADDING4, HALVES_PADDING4, modules as matrix_modules};
use crate::shader::Module;
use crate::{DType, DeviceCaps, Error, Result, SelectionMethod, SelectionProblem, Tier};

/// The modules and constants that a way of scoring adds to a kernel.
pub(super) type ModulesAndConstants = (Vec<&'static Module>, BTreeMap<&'static str, u32>);

/// The sizes by which `score/matrix.wgsl` scores the candidates of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) struct MatrixScoring {
    edge: u32,
    lanes: u32,
    head_dim: u32,
}

impl MatrixScoring {
    /// `None` unless scores are matrix products: the matrix tier, HiP (InfiniteHiP's means do not fit f16), and a lane for each key of a
    /// matrix.
    pub(super) fn of(problem: &SelectionProblem, caps: &DeviceCaps, tier: Tier) -> Option<Self> {
        let edge = caps.edge_of(tier)?;
        let lanes = *caps.subgroup_size.as_ref()?.start();
        let is_hip = matches!(problem.method, SelectionMethod::Hip(_));
        let scoring = Self { edge, lanes, head_dim: problem.shape.head_dim };
        (is_hip && problem.dtype == DType::F16 && lanes >= edge && scoring.groups(caps).is_some()).then_some(scoring)
    }

    /// Whether there are enough samples to fill matrices. Fewer are limited by reading keys.
    pub(super) fn is_worthwhile(&self, samples: u32) -> bool {
        samples >= self.edge
    }

    /// Number of subgroups of a search: up to 128 invocations, as workgroup memory allows.
    fn groups(&self, caps: &DeviceCaps) -> Option<u32> {
        let most = (128.min(caps.max_invocations_per_workgroup) / self.lanes).max(1);
        (1..=most).rev().find(|groups| {
            let tiling = SelectionTiling { lanes: self.lanes, search_groups: *groups, ..SelectionTiling::SMALLEST };
            let storage = tiling.workgroup_storage_bytes() + self.storage_bytes(*groups);
            tiling.search_size().is_multiple_of(16) && storage <= u64::from(caps.max_workgroup_storage_bytes)
        })
    }

    /// The tiling, given that of the other kernels.
    pub(super) fn tile(&self, tiling: SelectionTiling, caps: &DeviceCaps) -> SelectionTiling {
        let search_groups = self.groups(caps).unwrap_or(tiling.search_groups);
        SelectionTiling {
            lanes: self.lanes,
            search_groups,
            // The tile is the search's own.
            score_groups: 1,
            top_k_size: self.lanes * search_groups,
            // Many samples: the products take longer than the latency that buckets save.
            sharing: Sharing::Keys,
            candidates: Candidates::Scratch,
            ..tiling
        }
    }

    pub(super) fn validate(&self, tiling: SelectionTiling, caps: &DeviceCaps) -> Result<()> {
        if tiling.lanes != self.lanes {
            let rule = "must be the subgroup size: a subgroup holds a matrix";
            return Err(Error::Invalid { field: "lanes", value: tiling.lanes.into(), rule });
        }
        if tiling.sharing != Sharing::Keys {
            return Err(Error::Argument {
                argument: "sharing",
                rule: "must be that of keys: matrices share in their own way",
            });
        }
        let needed = tiling.workgroup_storage_bytes() + self.storage_bytes(tiling.search_groups);
        let available = caps.max_workgroup_storage_bytes.into();
        if needed > available {
            return Err(Error::Limit { limit: "max_compute_workgroup_storage_size", needed, available });
        }
        Ok(())
    }

    const fn columns4(&self) -> u32 {
        self.head_dim.next_multiple_of(self.edge) / 4
    }

    const fn stride4(&self) -> u32 {
        self.columns4() + HALVES_PADDING4
    }

    const fn sums_stride4(&self) -> u32 {
        self.edge / 4 + FLOATS_PADDING4
    }

    /// Workgroup memory besides that of the search: samples, keys, their products, and a score for each invocation.
    pub(super) fn storage_bytes(&self, groups: u32) -> u64 {
        let keys = u64::from(groups * self.edge);
        let halves = (keys + u64::from(self.edge)) * u64::from(self.stride4()) * 8;
        halves + keys * u64::from(self.sums_stride4()) * 16 + u64::from(groups * self.lanes) * 4 + 3 * 16
    }

    /// Scores by matrices.
    pub(super) fn specialize(&self, tiling: SelectionTiling, caps: &DeviceCaps) -> ModulesAndConstants {
        let keys = tiling.search_groups * self.edge;
        let mut chosen = vec![&modules::SHUFFLE_WORKGROUP];
        chosen.extend(matrix_modules(self.edge, caps));
        chosen.push(&modules::SCORE_MATRIX);
        let constants = BTreeMap::from([
            ("EDGE", self.edge),
            ("LANES", self.lanes),
            ("WORKGROUP_SIZE", tiling.search_size()),
            ("TILE_KEYS", keys),
            ("PARTS_OF_KEY", self.lanes / self.edge),
            ("K_TILES", 4 * self.columns4() / self.edge),
            ("K_COLUMNS4", self.columns4()),
            ("K_STRIDE4", self.stride4()),
            ("A_STRIDE4", self.stride4()),
            ("SUMS_STRIDE4", self.sums_stride4()),
            ("TILE_A4", self.edge * self.stride4()),
            ("TILE_K4", keys * self.stride4()),
            ("TILE_SUMS4", keys * self.sums_stride4()),
            ("HEAD_DIM4", self.head_dim / 4),
        ]);
        (chosen, constants)
    }
}
