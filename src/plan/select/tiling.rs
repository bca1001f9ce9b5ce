//! Workgroup sizes of selections: the table of heuristics, each with its reason.

use super::Sharing;
use super::matrix::MatrixScoring;
use crate::{DeviceCaps, Error, QuerySampling, Result, SelectionMethod, SelectionProblem, Tier};

/// Where the candidates of a top-k lie, and how the best are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Candidates {
    /// In scratch memory, any number of them; selected digit by digit, four digits of their keys.
    #[default]
    Scratch,
    /// In workgroup memory, in buckets by their keys, where [they are few enough](Self::MOST_IN_WORKGROUP) and the device has the room: for
    /// few lists, which are limited by the latency of memory and barriers.
    Workgroup,
}

impl Candidates {
    /// Limit on the candidates in workgroup memory.
    pub const MOST_IN_WORKGROUP: u32 = 2048;
}

/// How the kernels of a selection cut their work. Changes the speed and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct SelectionTiling {
    /// Invocations that share samples, or the row of a key: a power of two. In a subgroup tier they are a subgroup or part
    /// of one.
    pub lanes: u32,
    /// Samples that a lane scores together: a power of two up to 32; 1 with [`Sharing::Columns`].
    pub rows: u32,
    /// Groups of `lanes` in a workgroup that searches a tree.
    pub search_groups: u32,
    /// Groups of `lanes` in a workgroup that scores chunks.
    pub score_groups: u32,
    /// Invocations of a workgroup that keeps the best chunks.
    pub top_k_size: u32,
    /// Workgroups that search trees at one time, each with scratch memory of its own.
    pub max_searches: u32,
    /// How lanes divide the work: with [`Sharing::Keys`] each lane scores four keys of its own, for many samples; with
    /// [`Sharing::Columns`] the lanes of a group share the rows of four keys, for few samples.
    #[cfg_attr(feature = "tune", serde(default))]
    pub sharing: Sharing,
    /// Where the candidates of a top-k lie.
    #[cfg_attr(feature = "tune", serde(default))]
    pub candidates: Candidates,
}

crate::setters::setters!(SelectionTiling {
    with_lanes(lanes: u32)
    with_rows(rows: u32)
    with_search_groups(search_groups: u32)
    with_score_groups(score_groups: u32)
    with_top_k_size(top_k_size: u32)
    with_max_searches(max_searches: u32)
    with_sharing(sharing: Sharing)
    with_candidates(candidates: Candidates)
});

/// Up to this many samples, lanes share the rows of keys: each score then costs a few shuffles. More samples are better kept in
/// registers and scored against keys that each lane reads alone.
const FEW_SAMPLES: u32 = 4;

/// Bytes of each of four keys' rows that a lane loads at once: two loads of 16, 32 registers for all.
const BYTES_OF_ROW: u32 = 32;

/// vec4 of each of four keys' rows that a lane of a search loads at once, in tiers with subgroups.
const VEC4_OF_ROW: u32 = 4;

/// Workgroup memory of a top-k by digits: counts of digits, and each invocation's tally of kept candidates.
pub(super) const fn digit_bytes(invocations: u32) -> u64 {
    4 * 4 * 272 + 8 * (invocations as u64 + 16)
}

impl SelectionTiling {
    /// The smallest sizes, to be replaced one by one.
    pub const SMALLEST: Self = Self {
        lanes: 1,
        rows: 1,
        search_groups: 1,
        score_groups: 1,
        top_k_size: 1,
        max_searches: 1,
        sharing: Sharing::Keys,
        candidates: Candidates::Scratch,
    };

    /// The owners of keys in a workgroup of this many groups.
    pub(in crate::plan) const fn owners(&self, groups: u32) -> u32 {
        match self.sharing {
            Sharing::Keys | Sharing::Rows | Sharing::Tiles => self.lanes * groups,
            Sharing::Columns => groups,
        }
    }

    /// Samples that one load of the group covers, one for each lane.
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

    /// The most workgroup memory that a kernel declares: counts of digits, and each invocation's tally of kept candidates.
    #[must_use]
    pub const fn workgroup_storage_bytes(&self) -> u64 {
        let search = self.lanes * self.search_groups;
        let invocations = if search > self.top_k_size { search } else { self.top_k_size };
        digit_bytes(invocations) + 32
    }

    /// The tiling for a problem on a device.
    ///
    /// A search is one workgroup's work, so on a GPU the workgroup is as large as every device allows, and for few lists with few samples
    /// as large as this device allows: more invocations share a round's latency. On a software device every invocation costs time: 16 were
    /// 1.15 times as fast as 64 (lavapipe 25.0, HiP, 2 heads, 1 x 131072, width 128, f32). Chunks are scored in small workgroups, because
    /// they are few. 16 samples and four keys leave enough registers on a GPU for two workgroups a core; a software device takes the sizes
    /// that save loads.
    pub(super) fn choose(problem: &SelectionProblem, caps: &DeviceCaps, tier: Tier) -> Self {
        let samples = Self::num_samples(problem);
        let most_rows = match (caps.software, tier.subgroup()) {
            (true, true) => 32,
            (true, false) => 8,
            (false, _) => 16,
        };
        let (smallest, whole) = match (tier.subgroup(), &caps.subgroup_size) {
            (true, Some(size)) => ((*size.start()).min(64), *size.end()),
            _ => (16, 16),
        };
        let is_few = !caps.software && samples <= FEW_SAMPLES;
        let searches_by_rows = is_few && tier.subgroup() && matches!(problem.method, SelectionMethod::Hip(_));
        let (sharing, lanes) = if is_few {
            let row_bytes = problem.shape.head_dim.saturating_mul(problem.dtype.size_bytes() as u32);
            let lanes =
                if searches_by_rows { problem.shape.head_dim / 4 / VEC4_OF_ROW } else { row_bytes / BYTES_OF_ROW };
            (Sharing::Columns, lanes.next_power_of_two().clamp(4, smallest.max(4)))
        } else {
            (Sharing::Keys, smallest)
        };
        let groups = |size: u32| size.max(whole) / lanes;
        let lists = problem.blocks().num_lists(&problem.shape);
        let most = |size: u32| (1 << caps.max_invocations_per_workgroup.max(1).ilog2()).clamp(256, size);
        let size = match lists {
            _ if caps.software => 16,
            // Without subgroups each invocation's sums take workgroup memory.
            0..=64 if is_few && tier.subgroup() && !searches_by_rows => most(1024),
            0..=256 if is_few && tier.subgroup() => most(512),
            _ => 256,
        };
        let tiling = Self {
            lanes,
            rows: if is_few { 1 } else { samples.next_power_of_two().min(most_rows) },
            search_groups: groups(size),
            score_groups: groups(if caps.software { 16 } else { 64 }),
            top_k_size: size,
            max_searches: if caps.software { 8 } else { 512 },
            sharing,
            candidates: if caps.software { Candidates::Scratch } else { Candidates::Workgroup },
        };
        match MatrixScoring::of(problem, caps, tier) {
            Some(scoring) => scoring.tile(tiling, caps),
            None => tiling,
        }
    }

    /// Samples that a key is scored with in one go.
    pub(in crate::plan) fn num_samples(problem: &SelectionProblem) -> u32 {
        let queries = problem.blocks().block_size_q.min(problem.shape.seq_len_q).max(1);
        let selector = problem.method.selector();
        let samples = |stage| match selector.sampling(stage) {
            // The heads of a KV head look at a key together.
            QuerySampling::Stride(stride) => {
                let heads = problem.granularity.heads_per_set(&problem.shape).min(problem.shape.group_size());
                (queries / stride).max(1).saturating_mul(heads)
            }
            QuerySampling::Mean(stride) => queries.div_ceil(stride),
        };
        (0..selector.num_stages()).map(samples).max().unwrap_or(1)
    }

    /// Checks a tiling that a caller forces.
    pub(in crate::plan) fn validate(&self, caps: &DeviceCaps, tier: Tier) -> Result<()> {
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if !self.lanes.is_power_of_two() || self.lanes < 4 || self.lanes > 128 {
            return invalid("lanes", self.lanes, "must be a power of two from 4 to 128");
        }
        if !self.rows.is_power_of_two() || self.rows > 32 {
            return invalid("rows", self.rows, "must be a power of two up to 32");
        }
        if matches!(self.sharing, Sharing::Rows | Sharing::Tiles) {
            return invalid("sharing", self.sharing as u32, "must be Sharing::Keys or Sharing::Columns in a selection");
        }
        if self.sharing == Sharing::Columns && self.rows != 1 {
            return invalid("rows", self.rows, "must be 1 where lanes share the row of a key");
        }
        let available = caps.max_invocations_per_workgroup;
        // A compaction counts by up to 16 equal parts of the workgroup.
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
        let Self { lanes, rows, search_groups, score_groups, top_k_size, max_searches, sharing, candidates } = self;
        let lanes_of = if *sharing == Sharing::Columns { " of a key" } else { "" };
        let place = if *candidates == Candidates::Workgroup { " in workgroup memory" } else { "" };
        write!(
            f,
            "{lanes} lanes{lanes_of} x {rows} samples x {search_groups} or {score_groups} groups, \
             top-k by {top_k_size}{place}, {max_searches} searches"
        )
    }
}
