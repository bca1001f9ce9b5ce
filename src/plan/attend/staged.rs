//! Tile sizes of the kernels whose groups share tiles of keys and values in workgroup memory.

use std::collections::BTreeMap;

use super::rows::RowSets;
use super::tiling::whole_subgroups;
use super::tiling::{Sharing, Tiling};
use crate::{AttentionProblem, DType, DeviceCaps, Tier};

/// Sizes that follow from widths and a tiling; the shader and the budget of workgroup memory share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) struct StagedTiling {
    tiling: Tiling,
    head_dim4: u32,
    head_dim_v4: u32,
    /// vec4 columns of keys and queries that are staged at a time: a power of two.
    slice4: u32,
    /// Values that are staged at a time: a power of two from 4 to the number of keys whose weights are staged together.
    slice_keys: u32,
    selected: bool,
    tier: Tier,
}

/// With fewer rows, tiles are not staged: each workgroup would make too little use of its loads.
const LEAST_ROWS: u64 = 32;

/// Invocations of a workgroup: two or three workgroups fill a core's registers, so that one computes while another waits.
const INVOCATIONS: u32 = 128;

/// Limit on workgroup memory: the rest of a core's memory beside two workgroups is the cache for queries.
const MOST_BYTES: u64 = 32 << 10;

impl StagedTiling {
    pub(in crate::plan) fn new(problem: &AttentionProblem, tiling: Tiling, caps: &DeviceCaps, tier: Tier) -> Self {
        let shape = problem.shape();
        let (head_dim4, head_dim_v4) = (shape.head_dim / 4, shape.head_dim_v / 4);
        // Loads in flight take 24 registers of an invocation for keys and queries, 16 for values; a key's columns are 64 contiguous bytes.
        let ahead = if problem.dtype == DType::F32 { 4 } else { 8 };
        let most = ahead * u64::from(tiling.workgroup_size());
        let slice4 = power_below(most * 3 / 2 / u64::from(tiling.tile_kv() + tiling.tile_q()))
            .min(head_dim4.next_power_of_two())
            .clamp(1, 8);
        let slice_keys = power_below(most / u64::from(head_dim_v4)).clamp(4, 4 * tiling.lanes);
        let selected = problem.blocks.is_some();
        let mut staged = Self { tiling, head_dim4, head_dim_v4, slice4, slice_keys, selected, tier };
        let budget = u64::from(caps.max_workgroup_storage_bytes).min(MOST_BYTES);
        while staged.storage_bytes() > budget {
            let (scoring, summing) = (staged.scoring4(), staged.summing4());
            if scoring >= summing && staged.slice4 > 1 {
                staged.slice4 /= 2;
            } else if summing >= scoring && staged.slice_keys > 4 {
                staged.slice_keys /= 2;
            } else {
                break;
            }
        }
        staged
    }

    /// Whether these kernels suit a problem: few rows leave little to share. Software devices read workgroup memory no faster than other
    /// memory: 0.27 times the rate of [`Sharing::Keys`] on lavapipe 25.0 (2 heads, 256 x 256, width 128, f32, 8 rows x 4 keys), after 38 s of
    /// compiling.
    pub(in crate::plan) fn suits(problem: &AttentionProblem, caps: &DeviceCaps) -> bool {
        !caps.software && RowSets::of(problem).rows_per_q_block() >= LEAST_ROWS
    }

    /// The tiling for a problem, without its splits; `None` when workgroup memory is too small.
    pub(in crate::plan) fn choose(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier) -> Option<Tiling> {
        let num_rows = RowSets::of(problem).rows_per_q_block();
        let columns4 = problem.shape().head_dim_v / 4;
        // Two vec4 of out for each lane: 8 rows x 8 columns. At least eight lanes, which read different banks.
        let wanted = columns4.div_ceil(2).next_power_of_two().clamp(8, 32);
        let lanes = match (tier.subgroup(), &caps.subgroup_size) {
            (true, Some(size)) => wanted.min(*size.start()),
            _ => wanted.min(16),
        };
        let whole_groups = whole_subgroups(lanes, caps, tier);
        // Half of an invocation's registers are scores and sums.
        let keys = if columns4.div_ceil(lanes) > 2 || lanes > 16 { 4 } else { 8 };
        let rows = power_below((128 / (4 * columns4.div_ceil(lanes) + keys)).into()).min(8);
        let most_groups = num_rows.div_ceil(rows.into()).min(u64::from(INVOCATIONS / lanes)).max(1) as u32;
        let mut tiling = Tiling { lanes, rows, keys, groups: 1, num_splits: 1, sharing: Sharing::Tiles };
        tiling.groups = (most_groups / whole_groups).max(1) * whole_groups;
        let budget = u64::from(caps.max_workgroup_storage_bytes).min(MOST_BYTES);
        let fits = |tiling: Tiling| Self::new(problem, tiling, caps, tier).storage_bytes() <= budget;
        while !fits(tiling) {
            if tiling.groups / 2 >= whole_groups && (tiling.groups / 2).is_multiple_of(whole_groups) {
                tiling.groups /= 2;
            } else if tiling.keys > 4 {
                tiling.keys = 4;
            } else if tiling.rows > 4 {
                tiling.rows /= 2;
            } else {
                return None;
            }
        }
        (u64::from(tiling.tile_q()) >= LEAST_ROWS / 2).then_some(tiling)
    }

    const fn scoring4(&self) -> u32 {
        (self.tiling.tile_kv() + self.tiling.tile_q()) * self.slice4
    }

    const fn summing4(&self) -> u32 {
        self.tiling.tile_q() * self.tiling.lanes + self.slice_keys * self.head_dim_v4
    }

    /// Workgroup memory that the kernels declare: the staged tile, the reductions of rows, the keys of a tile.
    pub(in crate::plan) const fn storage_bytes(&self) -> u64 {
        let (scoring, summing) = (self.scoring4() as u64, self.summing4() as u64);
        let staged = 16 * if scoring > summing { scoring } else { summing };
        let keys = if self.selected { self.tiling.tile_kv() as u64 * 4 } else { 0 };
        staged + self.tiling.reduce_bytes(self.tier) + keys
    }

    /// Further constants of this member, beside those of all members of `rows`.
    pub(in crate::plan) fn constants(&self) -> BTreeMap<&'static str, u32> {
        let Self { tiling, head_dim4, head_dim_v4, slice4, slice_keys, .. } = *self;
        let (tile_q, tile_kv, lanes) = (tiling.tile_q(), tiling.tile_kv(), tiling.lanes);
        let each = |elements: u32| elements.div_ceil(tiling.workgroup_size());
        BTreeMap::from([
            ("SLICE4", slice4),
            ("SLICES", head_dim4.div_ceil(slice4)),
            ("SWIZZLE", slice4.min(8)),
            ("SLICE_KEYS", slice_keys),
            ("STEPS", tile_kv / slice_keys),
            ("WEIGHTS_STEPS", 4 * lanes / slice_keys),
            ("K_EACH", each(tile_kv * slice4)),
            ("Q_EACH", each(tile_q * slice4)),
            ("V_EACH", each(slice_keys * head_dim_v4)),
            ("STAGED4", self.scoring4().max(self.summing4())),
            ("STAGED_Q", tile_kv * slice4),
            ("STAGED_V", tile_q * lanes),
        ])
    }
}

/// The largest power of two up to a number, at least 1.
const fn power_below(number: u64) -> u32 {
    // Below 2^32: the numbers are sizes of tiles.
    if number == 0 { 1 } else { 1 << number.ilog2() }
}
