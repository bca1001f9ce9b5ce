//! The members of the shader families that a selection's tiling asks for, and the workgroup memory that they declare.

use std::collections::BTreeMap;

use super::matrix::ModulesAndConstants;
use super::tiling::digit_bytes;
use super::{Candidates, SelectionPlan, Sharing};
use crate::kernels::{self, modules};
use crate::plan::attend::columns::{chunk, columns};
use crate::plan::modules::share_modules;
use crate::shader::Specialization;
use crate::{DeviceCaps, SelectionMethod};

/// Number of buckets of a top-k: as many as usual numbers of candidates, so that few candidates share one.
const BUCKETS: u32 = 512;

/// Values that the lanes of a group sum up together: the scores of four keys.
const REDUCED: u32 = 4;

/// Candidates for which a top-k in workgroup memory has room: whole vec4 of bits.
const fn room(candidates: u32) -> u32 {
    candidates.next_multiple_of(128)
}

/// Workgroup memory of a top-k by buckets over `candidates`, array by array, each in whole vec4.
pub(in crate::plan) const fn bucket_bytes(candidates: u32) -> u64 {
    let candidates = room(candidates) as u64;
    4 * candidates + 16 + 4 * (BUCKETS + BUCKETS / 32) as u64 + 16 + 2 * (candidates / 8).next_multiple_of(16)
}

/// Workgroup memory of a beam's groups, twice, and of its probes.
pub(super) const fn beam_bytes(candidates: u32) -> u64 {
    12 * room(candidates) as u64
}

/// A top-k in workgroup memory whose subgroups have at least `lanes` lanes.
#[derive(Clone, Copy)]
pub(super) struct Depths {
    pub(super) candidates: u32,
    pub(super) invocations: u32,
    pub(super) lanes: u32,
    /// Words of one bit for each lane of the largest subgroup.
    words: u32,
}

impl Depths {
    /// Depths that a lane scans: as many loads of workgroup memory are under way at once.
    const EACH: u32 = 16;

    /// Lanes of one subgroup that scan the depths.
    const fn scanned(self) -> u32 {
        if self.lanes < 32 { self.lanes } else { 32 }
    }

    const fn turns(self) -> u32 {
        room(self.candidates).div_ceil(self.invocations)
    }

    /// Workgroup memory, array by array, each in whole vec4.
    pub(super) const fn bytes(self) -> u64 {
        let [candidates, depths] = [room(self.candidates) as u64, (Self::EACH * self.scanned()) as u64];
        4 * candidates + 4 * depths + 2 * (candidates / 8).next_multiple_of(16) + 2 * 16
    }

    pub(super) fn add(self, to: &mut Specialization) {
        to.push(&modules::TOP_K_DEPTHS);
        to.constants.extend([
            ("CANDIDATES", room(self.candidates)),
            ("DEPTHS", Self::EACH * self.scanned()),
            ("TURNS", self.turns()),
            ("SCANNED", self.scanned()),
            ("SUBGROUP_WORDS", self.words),
        ]);
    }
}

/// Adds a top-k to a kernel: in workgroup memory for this many candidates, or by digits for any number.
pub(in crate::plan) fn add_top_k(to: &mut Specialization, candidates: Option<u32>, invocations: u32) {
    to.push(if candidates.is_some() { &modules::TOP_K_BUCKETS } else { &modules::TOP_K_DIGITS });
    match candidates {
        Some(candidates) => to.constants.extend([
            ("CANDIDATES", room(candidates)),
            ("BUCKETS", BUCKETS),
            ("BUCKET_BITS", BUCKETS.ilog2()),
            ("PARENTS", BUCKETS / 32),
        ]),
        None => drop(to.constants.insert("PARTS", invocations.min(16))),
    }
}

impl SelectionPlan {
    /// Scores four keys at a time for each owner, in workgroups of this many groups.
    pub(super) fn best_scores(&self, groups: u32, caps: &DeviceCaps) -> ModulesAndConstants {
        let tiling = self.tiling;
        let lanes = tiling.lanes;
        let head_dim4 = self.problem.shape.head_dim / 4;
        let (share, reduce) = share_modules(lanes, self.tier, caps);
        let mut constants = BTreeMap::from([
            ("LANES", lanes),
            ("OWNERS", tiling.owners(groups)),
            ("WORKGROUP_SIZE", lanes * groups),
            ("HEAD_DIM4", head_dim4),
        ]);
        match tiling.sharing {
            Sharing::Keys | Sharing::Rows | Sharing::Tiles => {
                let share = tiling.share(self.tier);
                constants.extend([("ROWS", tiling.rows), ("SHARE", share), ("SLOTS", tiling.rows / share)]);
            }
            Sharing::Columns => {
                let chunk = chunk(self.problem.dtype);
                let cols = columns(head_dim4, lanes, chunk);
                constants.extend([("COLS", cols), ("CHUNK", chunk), ("GROUPS", groups)]);
                // One more than lanes, so that invocations that add neighbouring scores read different banks.
                constants.extend([("REDUCED", REDUCED), ("REDUCE_STRIDE", lanes + 1)]);
            }
        }
        let modules = match tiling.sharing {
            Sharing::Keys | Sharing::Rows | Sharing::Tiles => {
                vec![share, &modules::SAMPLE_PLACE, &modules::BEST_SCORES_LANES]
            }
            Sharing::Columns => vec![share, reduce, &modules::SAMPLE_PLACE, &modules::BEST_SCORES_COLUMNS],
        };
        (modules, constants)
    }

    /// The lanes of a group share the rows of four keys at a time, and exchange sums by shuffles.
    pub(super) fn shared_scores(&self, caps: &DeviceCaps) -> ModulesAndConstants {
        let tiling = self.tiling;
        let head_dim4 = self.problem.shape.head_dim / 4;
        let constants = BTreeMap::from([
            ("LANES", tiling.lanes),
            ("GROUPS", tiling.search_groups),
            ("WORKGROUP_SIZE", tiling.search_size()),
            ("HEAD_DIM4", head_dim4),
            ("COLS", columns(head_dim4, tiling.lanes, 1)),
        ]);
        (vec![share_modules(tiling.lanes, self.tier, caps).0, &modules::SCORE_COLUMNS], constants)
    }

    /// Whether this is a search whose scores are sums over the lanes of a group, by shuffles.
    pub(in crate::plan) fn searches_by_rows(&self) -> bool {
        let is_hip = matches!(self.problem.method, SelectionMethod::Hip(_));
        is_hip && self.tiling.sharing == Sharing::Columns && self.tier.subgroup()
    }

    /// A top-k by depths, for this many invocations: in tiers with subgroups, all of which are full, and with at most one candidate for each
    /// invocation. With two, an earlier text gave wrong lists on an H200 in three of eleven runs, and the present one was not run there.
    pub(super) fn depths(&self, candidates: u32, invocations: u32) -> Option<Depths> {
        let sizes = self.subgroup_lanes.as_ref()?;
        let (lanes, words) = (*sizes.start(), sizes.end().div_ceil(32));
        let depths = Depths { candidates, invocations, lanes, words };
        (invocations.is_multiple_of(*sizes.end()) && depths.turns() == 1).then_some(depths)
    }

    pub(super) fn fits(&self, candidates: u32, bytes: u64, caps: &DeviceCaps) -> Option<u32> {
        let few = candidates <= Candidates::MOST_IN_WORKGROUP && bytes <= caps.max_workgroup_storage_bytes.into();
        (few && self.tiling.candidates == Candidates::Workgroup).then_some(candidates)
    }

    /// Workgroup memory of scoring: sums over lanes where there are no subgroups, or the tiles of matrices.
    pub(super) fn score_bytes(&self, groups: u32) -> u64 {
        let sums = match self.tiling.sharing {
            Sharing::Columns if !self.tier.subgroup() => {
                u64::from(groups * REDUCED) * 4 * u64::from(self.tiling.lanes + 2)
            }
            _ => 0,
        };
        sums + self.matrix.map_or(0, |scoring| scoring.storage_bytes(groups))
    }

    /// The most workgroup memory that a kernel declares.
    #[must_use]
    pub fn workgroup_storage_bytes(&self) -> u64 {
        let of = |dispatch: &super::Dispatch| {
            let constant = |name| dispatch.specialization.constant(name);
            let invocations = constant("WORKGROUP_SIZE").unwrap_or(0);
            let depths = constant("DEPTHS").and(constant("CANDIDATES"));
            let top_k = match (constant("CANDIDATES"), constant("PARTS")) {
                _ if depths.is_some() => self.depths(depths.unwrap_or(0), invocations).map_or(0, Depths::bytes),
                (Some(candidates), _) => bucket_bytes(candidates),
                (None, Some(_)) => digit_bytes(invocations),
                (None, None) => 0,
            };
            let kernel = dispatch.kernel();
            if kernel == &kernels::SEARCH_TREE {
                let beam = constant("CANDIDATES").map_or(0, beam_bytes);
                top_k + beam + self.score_bytes(self.tiling.search_groups)
            } else if kernel == &kernels::SCORE_CHUNKS {
                self.score_bytes(self.tiling.score_groups)
            } else if kernel == &kernels::SELECT_CHUNKS {
                // The number of candidates, and the number of written entries.
                top_k + 32
            } else {
                0
            }
        };
        self.dispatches.iter().map(of).max().unwrap_or(0)
    }
}
