//! Sizes of a selection's workgroups: the table of heuristics, each with its reason.

use super::select_matrix::MatrixScoring;
use crate::{DeviceCaps, Error, Result, SelectionMethod, SelectionProblem, Tier};

/// How the kernels of a selection cut their work. Changes the speed and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct SelectionTiling {
    /// Invocations that share samples: a power of two. In a subgroup tier they are a subgroup or part of one.
    pub lanes: u32,
    /// Samples that a lane scores at a time: a power of two up to 32.
    pub rows: u32,
    /// Groups of `lanes` in a workgroup that searches a tree.
    pub search_groups: u32,
    /// Groups of `lanes` in a workgroup that scores chunks.
    pub score_groups: u32,
    /// Invocations of a workgroup that keeps the best chunks.
    pub top_k_size: u32,
    /// Workgroups that search trees at one time, each with scratch memory of its own.
    pub max_searches: u32,
}

impl SelectionTiling {
    /// One invocation of everything.
    pub(super) const SMALLEST: Self =
        Self { lanes: 1, rows: 1, search_groups: 1, score_groups: 1, top_k_size: 1, max_searches: 1 };

    /// Samples that one load of the group covers, one a lane.
    pub(super) const fn share(&self, tier: Tier) -> u32 {
        if !tier.subgroup() {
            1
        } else if self.rows < self.lanes {
            self.rows
        } else {
            self.lanes
        }
    }

    /// Invocations of a workgroup that searches a tree.
    #[must_use]
    pub const fn search_size(&self) -> u32 {
        self.lanes * self.search_groups
    }

    /// Workgroup memory that the kernels declare at the most: counts of digits, and of what each invocation keeps.
    #[must_use]
    pub const fn workgroup_storage_bytes(&self) -> u64 {
        let search = self.lanes * self.search_groups;
        let invocations = if search > self.top_k_size { search } else { self.top_k_size };
        4 * 4 * 272 + 8 * (invocations as u64 + 16) + 32
    }

    /// The tiling for a problem on a device.
    ///
    /// A search is one workgroup's, so on a GPU it is as large as every device allows; on a software device every invocation
    /// costs, and 16 were 1.15 times as fast as 64 (lavapipe 25.0, HiP, 2 heads, 1 x 131072, width 128, f32). Chunks are scored in small workgroups, because there are few of them. Samples of 16 rows and
    /// four keys leave registers on a GPU for two workgroups a core; a software device takes what saves loads.
    pub(super) fn choose(problem: &SelectionProblem, caps: &DeviceCaps, tier: Tier) -> Self {
        let samples = Self::num_samples(problem);
        let most_rows = match (caps.software, tier.subgroup()) {
            (true, true) => 32,
            (true, false) => 8,
            (false, _) => 16,
        };
        let (lanes, whole) = match (tier.subgroup(), &caps.subgroup_size) {
            (true, Some(size)) => ((*size.start()).min(64), *size.end()),
            _ => (16, 16),
        };
        let groups = |size: u32| size.max(whole) / lanes;
        let size = if caps.software { 16 } else { 256 };
        let tiling = Self {
            lanes,
            rows: samples.next_power_of_two().min(most_rows),
            search_groups: groups(size),
            score_groups: groups(if caps.software { 16 } else { 64 }),
            top_k_size: size,
            max_searches: if caps.software { 8 } else { 512 },
        };
        match MatrixScoring::of(problem, caps, tier) {
            Some(scoring) => scoring.tile(tiling, caps),
            None => tiling,
        }
    }

    /// Samples that a key is scored with at a time.
    pub(super) fn num_samples(problem: &SelectionProblem) -> u32 {
        let queries = problem.blocks().block_size_q.min(problem.shape.seq_len_q).max(1);
        match &problem.method {
            // The heads of a KV head look at a key together.
            SelectionMethod::Hip(hip) => {
                let heads = problem.granularity.heads_per_set(&problem.shape).min(problem.shape.group_size());
                (queries / hip.stride_q).max(1).saturating_mul(heads)
            }
            SelectionMethod::InfiniteHip(method) => {
                let most = |stage: &crate::Stage| queries.div_ceil(stage.stride_q);
                method.stages.iter().map(most).max().unwrap_or(1)
            }
        }
    }

    /// Checks a tiling that a caller forces.
    pub(super) fn validate(&self, caps: &DeviceCaps, tier: Tier) -> Result<()> {
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if !self.lanes.is_power_of_two() || self.lanes < 4 || self.lanes > 128 {
            return invalid("lanes", self.lanes, "must be a power of two from 4 to 128");
        }
        if !self.rows.is_power_of_two() || self.rows > 32 {
            return invalid("rows", self.rows, "must be a power of two up to 32");
        }
        let available = caps.max_invocations_per_workgroup;
        // A compaction counts by up to 16 equal parts.
        let is_whole = |size: u64| size.is_multiple_of(16) || (size < 16 && size.is_power_of_two());
        for (field, groups) in [("search_groups", self.search_groups), ("score_groups", self.score_groups)] {
            let size = u64::from(self.lanes) * u64::from(groups);
            if groups == 0 || !is_whole(size) {
                return invalid(field, groups, "lanes * groups must be a power of two below 16 or a multiple of 16");
            }
            if let (true, Some(subgroup)) = (tier.subgroup(), &caps.subgroup_size) {
                if self.lanes > *subgroup.start() {
                    return invalid("lanes", self.lanes, "must be at most the smallest subgroup size");
                }
                if !size.is_multiple_of((*subgroup.end()).into()) {
                    let rule = "lanes * groups must be a multiple of the largest subgroup size";
                    return invalid(field, groups, rule);
                }
            }
            if size > available.into() {
                let limit = "max_compute_invocations_per_workgroup";
                return Err(Error::Limit { limit, needed: size, available: available.into() });
            }
        }
        if self.top_k_size == 0 || !is_whole(self.top_k_size.into()) || self.top_k_size > available {
            let rule =
                "must be a power of two below 16 or a multiple of 16, up to the device's invocations of a workgroup";
            return invalid("top_k_size", self.top_k_size, rule);
        }
        if self.max_searches == 0 || self.max_searches > caps.max_workgroups_per_dimension {
            let rule = "must be from 1 to the device's workgroups of a dimension";
            return invalid("max_searches", self.max_searches, rule);
        }
        Ok(())
    }
}

impl core::fmt::Display for SelectionTiling {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { lanes, rows, search_groups, score_groups, top_k_size, max_searches } = self;
        write!(
            f,
            "{lanes} lanes x {rows} samples x {search_groups} or {score_groups} groups, top-k by {top_k_size}, \
             {max_searches} searches"
        )
    }
}
