//! Tile sizes: the one table of heuristics, each with its reason.

use super::columns::{ColumnsTiling, walk_keys, walks_alone};
use super::matrix::MatrixTiling;
use super::rows::RowSets;
use super::staged::StagedTiling;
use crate::{AttentionProblem, DeviceCaps, Error, Result, Tier};

/// How the invocations of a workgroup divide the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Sharing {
    /// Each group has query rows of its own. Its lanes take different keys for the scores, and different columns of out.
    #[default]
    Keys,
    /// All groups have the same query rows and different keys. The lanes of a group share the row of a key, so that neighbours read
    /// neighbouring memory: for few query rows, which are limited by reading k and v.
    Columns,
    /// Each group has query rows of its own and divides them among its lanes; all groups share a tile of keys. [`Tier::Matrix`] takes this.
    Rows,
    /// Like [`Sharing::Keys`], but all groups read keys and values from tiles in workgroup memory, which they fill together: for many
    /// query rows, which are limited by arithmetic.
    Tiles,
}

/// How a kernel cuts its problem. A *group* of `lanes` invocations attends `rows` query rows; a workgroup has `groups` groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Tiling {
    /// Invocations that share query rows: a power of two. In a subgroup tier they are a subgroup or part of one.
    pub lanes: u32,
    /// Query rows of a group: a power of two up to 32; with [`Sharing::Columns`] any number up to 32; with [`Tier::Matrix`] a
    /// multiple of the matrix edge.
    pub rows: u32,
    /// Keys of a lane in one tile: a multiple of 4 up to 16. With [`Sharing::Columns`] keys of a group, any number up to 16. With
    /// [`Sharing::Rows`] the keys of the tile: a multiple of the matrix edge up to 128.
    pub keys: u32,
    /// Groups of a workgroup.
    pub groups: u32,
    /// Slices of the keys, each for another workgroup. More than one gives partial results that are merged.
    pub num_splits: u32,
    /// How lanes and groups divide the work.
    #[cfg_attr(feature = "tune", serde(default))]
    pub sharing: Sharing,
}

crate::setters::setters!(Tiling {
    with_lanes(lanes: u32)
    with_rows(rows: u32)
    with_keys(keys: u32)
    with_groups(groups: u32)
    with_num_splits(num_splits: u32)
    with_sharing(sharing: Sharing)
});

impl Tiling {
    /// `groups` of `lanes` invocations with `rows` query rows and `keys` keys, [`Sharing::Keys`], no splits.
    #[must_use]
    pub const fn new(lanes: u32, rows: u32, keys: u32, groups: u32) -> Self {
        Self { lanes, rows, keys, groups, num_splits: 1, sharing: Sharing::Keys }
    }
}

impl Tiling {
    /// Limit on the splits of a plan.
    pub const MAX_SPLITS: u32 = 4096;

    /// Query rows of a workgroup.
    #[must_use]
    pub const fn tile_q(&self) -> u32 {
        match self.sharing {
            Sharing::Keys | Sharing::Tiles | Sharing::Rows => self.rows * self.groups,
            Sharing::Columns => self.rows,
        }
    }

    /// Keys of a tile.
    #[must_use]
    pub const fn tile_kv(&self) -> u32 {
        match self.sharing {
            Sharing::Keys | Sharing::Tiles => self.lanes * self.keys,
            Sharing::Columns => self.groups * self.keys,
            Sharing::Rows => self.keys,
        }
    }

    /// Invocations of a workgroup.
    #[must_use]
    pub const fn workgroup_size(&self) -> u32 {
        self.lanes * self.groups
    }

    /// Rows that one load of the group covers, one for each lane. Without subgroup operations every lane loads every row.
    pub(in crate::plan) const fn share(&self, tier: Tier) -> u32 {
        if !tier.subgroup() {
            1
        } else if self.rows < self.lanes {
            self.rows
        } else {
            self.lanes
        }
    }

    /// Loads of one lane that cover all rows.
    pub(in crate::plan) const fn slots(&self, tier: Tier) -> u32 {
        self.rows / self.share(tier)
    }

    /// vec4 elements from one row's weights to the next. One more than needed, so that lanes that read one column of many rows use
    /// different banks of workgroup memory.
    pub(in crate::plan) const fn weights_stride(&self) -> u32 {
        self.tile_kv() / 4 + 1
    }

    /// Workgroup memory that `attend_rows` declares with this tiling.
    const fn workgroup_storage_bytes(&self, tier: Tier) -> u64 {
        let weights = self.groups as u64 * self.rows as u64 * self.weights_stride() as u64 * 16;
        weights + self.reduce_bytes(tier)
    }

    /// Workgroup memory for reducing maxima and sums of rows.
    pub(in crate::plan) const fn reduce_bytes(&self, tier: Tier) -> u64 {
        let reduce = self.groups as u64 * self.rows as u64 * (self.lanes as u64 + 1) * 4;
        // Arrays begin at multiples of 16 bytes.
        if tier.subgroup() { 0 } else { reduce.next_multiple_of(16) + 16 }
    }

    /// Workgroup memory for the keys of a tile, where they come from a list.
    const fn tile_keys_bytes(&self) -> u64 {
        self.groups as u64 * self.tile_kv() as u64 * 4
    }

    /// Workgroup memory that the kernels of a problem declare.
    pub(in crate::plan) fn storage_bytes(&self, problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier) -> u64 {
        if let Some(edge) = caps.edge_of(tier) {
            return MatrixTiling::new(problem, *self, edge).storage_bytes();
        }
        match self.sharing {
            Sharing::Columns => return ColumnsTiling::new(problem, *self, caps, tier).storage_bytes(),
            Sharing::Tiles => return StagedTiling::new(problem, *self, caps, tier).storage_bytes(),
            Sharing::Keys | Sharing::Rows => {}
        }
        self.workgroup_storage_bytes(tier) + if problem.blocks.is_some() { self.tile_keys_bytes() } else { 0 }
    }

    /// The tiling of a problem for a device that has the tier.
    ///
    /// # Errors
    /// [`Error::Limit`] when workgroup memory has no room for a tile of matrices.
    pub(in crate::plan) fn choose(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier) -> Result<Self> {
        if let Some(edge) = caps.edge_of(tier) {
            let mut tiling = MatrixTiling::choose(problem, caps, edge).ok_or(Error::Limit {
                limit: "max_compute_workgroup_storage_size",
                needed: MatrixTiling::least_storage_bytes(problem, caps, edge),
                available: caps.max_workgroup_storage_bytes.into(),
            })?;
            tiling.num_splits = choose_splits(problem, tiling, caps);
            return Ok(tiling);
        }
        Ok(Self::of_sharing(problem, caps, tier, choose_sharing(problem, caps)))
    }

    /// The sharings that tuning may try for a problem in a tier without matrices, each with its tiling.
    #[cfg(feature = "tune")]
    pub(crate) fn of_each_sharing(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier) -> Vec<Self> {
        let columns = ColumnsTiling::suits(problem).then_some(Sharing::Columns);
        let tiles = StagedTiling::suits(problem, caps).then_some(Sharing::Tiles);
        let of = |sharing| Self::of_sharing(problem, caps, tier, sharing);
        [Sharing::Keys].into_iter().chain(columns).chain(tiles).map(of).collect()
    }

    /// Falls back to [`Sharing::Keys`] where workgroup memory is too small for the other.
    fn of_sharing(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier, sharing: Sharing) -> Self {
        let chosen = match sharing {
            Sharing::Columns => ColumnsTiling::choose(problem, caps, tier),
            Sharing::Tiles => StagedTiling::choose(problem, caps, tier),
            Sharing::Keys | Sharing::Rows => None,
        };
        if let Some(tiling) = chosen {
            return Self { num_splits: choose_splits(problem, tiling, caps), ..tiling };
        }
        let shape = problem.shape();
        let num_rows = RowSets::of(problem).rows_per_q_block();
        let lanes = choose_lanes(shape.head_dim_v, caps, tier);
        let columns = shape.head_dim_v.div_ceil(4).div_ceil(lanes);
        let rows = choose_rows(columns, KEYS, caps, tier)
            .min(u32::try_from(num_rows.max(1).next_power_of_two()).unwrap_or(u32::MAX));
        let keys = choose_keys(rows, caps);
        let mut tiling = Self { lanes, rows, keys, groups: 1, num_splits: 1, sharing: Sharing::Keys };
        tiling.groups = choose_groups(problem, tiling, num_rows, caps, tier);
        // Where the size of subgroups varies, a workgroup of whole subgroups may have many groups: each gets fewer rows.
        while tiling.rows > 1 && tiling.storage_bytes(problem, caps, tier) > workgroup_budget(caps) {
            tiling.rows /= 2;
        }
        tiling.num_splits = choose_splits(problem, tiling, caps);
        tiling
    }

    /// The number of splits by the rules, for given valid tiles.
    pub(in crate::plan) fn splits_for(self, problem: &AttentionProblem, caps: &DeviceCaps) -> u32 {
        choose_splits(problem, self, caps)
    }

    /// Checks a tiling that a caller forces.
    pub(in crate::plan) fn validate(&self, problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier) -> Result<()> {
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if !self.lanes.is_power_of_two() || self.lanes < 4 || self.lanes > 128 {
            return invalid("lanes", self.lanes, "must be a power of two from 4 to 128");
        }
        if self.groups == 0 {
            return invalid("groups", 0, "must be at least 1");
        }
        if tier.matrix() != (self.sharing == Sharing::Rows) {
            return invalid("sharing", self.sharing as u32, "must be Sharing::Rows with matrices, and only there");
        }
        let invocations = u64::from(self.lanes) * u64::from(self.groups);
        if invocations > u64::from(caps.max_invocations_per_workgroup) {
            return Err(Error::Limit {
                limit: "max_compute_invocations_per_workgroup",
                needed: invocations,
                available: caps.max_invocations_per_workgroup.into(),
            });
        }
        if let (true, Some(size)) = (tier.subgroup(), &caps.subgroup_size) {
            if self.lanes > *size.start() {
                return invalid("lanes", self.lanes, "must be at most the smallest subgroup size");
            }
            if !self.workgroup_size().is_multiple_of(*size.end()) {
                let rule = "lanes * groups must be a multiple of the largest subgroup size";
                return invalid("groups", self.groups, rule);
            }
        }
        if self.sharing == Sharing::Columns {
            if self.rows == 0 || self.rows > 32 {
                return invalid("rows", self.rows, "must be from 1 to 32");
            }
            if self.keys == 0 || self.keys > 16 {
                return invalid("keys", self.keys, "must be from 1 to 16");
            }
        } else {
            if !self.rows.is_power_of_two() || self.rows > 32 {
                return invalid("rows", self.rows, "must be a power of two up to 32");
            }
            if !tier.matrix() && (!self.keys.is_multiple_of(4) || self.keys > 16) || self.keys == 0 {
                return invalid("keys", self.keys, "must be a multiple of 4 up to 16");
            }
        }
        if self.keys > 128 {
            return invalid("keys", self.keys, "must be at most 128: a tile is");
        }
        if self.num_splits == 0 || self.num_splits > Self::MAX_SPLITS {
            return invalid("num_splits", self.num_splits, "must be from 1 to 4096");
        }
        if let Some(edge) = caps.edge_of(tier) {
            return MatrixTiling::new(problem, *self, edge).validate(caps);
        }
        let bytes = self.storage_bytes(problem, caps, tier);
        if bytes > u64::from(caps.max_workgroup_storage_bytes) {
            return Err(Error::Limit {
                limit: "max_compute_workgroup_storage_size",
                needed: bytes,
                available: caps.max_workgroup_storage_bytes.into(),
            });
        }
        Ok(())
    }
}

impl core::fmt::Display for Tiling {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { lanes, rows, keys, groups, num_splits, sharing } = self;
        let lanes_of = if *sharing == Sharing::Columns { " of a key" } else { "" };
        let staged = if *sharing == Sharing::Tiles { " of staged tiles" } else { "" };
        write!(f, "{lanes} lanes{lanes_of} x {rows} rows x {keys} keys x {groups} groups{staged}, {num_splits} splits")
    }
}

/// Few rows wait for memory, many for arithmetic and its operands. A software device does not coalesce the loads of neighbouring lanes.
fn choose_sharing(problem: &AttentionProblem, caps: &DeviceCaps) -> Sharing {
    if !caps.software && ColumnsTiling::suits(problem) {
        Sharing::Columns
    } else if StagedTiling::suits(problem, caps) {
        Sharing::Tiles
    } else {
        Sharing::Keys
    }
}

/// Lanes split the columns of v, so more lanes than columns would idle; within a subgroup tier a group is at most the
/// smallest subgroup that the device may choose. Without subgroups 16 lanes keep the reductions short.
fn choose_lanes(head_dim_v: u32, caps: &DeviceCaps, tier: Tier) -> u32 {
    let columns = (head_dim_v / 4).next_power_of_two().max(8);
    match (tier.subgroup(), &caps.subgroup_size) {
        (true, Some(size)) => columns.min(*size.start()).min(64),
        _ => columns.min(16),
    }
}

/// A lane keeps 4 * `columns` outputs and `keys` scores for every row. On a GPU they should stay in registers: 128 of them leave room
/// for operands at fair occupancy. A software device keeps them in its first-level cache, where every load costs as much as dozens of
/// multiply-adds, so more rows for each load win: 32 rows were 1.3 times as fast as 16 on lavapipe 25.0 (2 heads, 1024 x 1024, width 128,
/// f32), 8 rows 0.7 times. Without subgroups no load is shared, so more rows gain little (8 rows 0.9 times as fast as 32) for three times
/// the compile time.
fn choose_rows(columns: u32, keys: u32, caps: &DeviceCaps, tier: Tier) -> u32 {
    let fitting = match (caps.software, tier.subgroup()) {
        (true, true) => (128 / columns).min(32),
        (true, false) => (128 / columns).min(8),
        (false, _) => (128 / (4 * columns + keys)).min(16),
    };
    // The largest power of two that fits.
    1 << fitting.max(1).ilog2()
}

/// A workgroup has a multiple of this many groups of `lanes`, so that it consists of whole subgroups, up to the largest size.
pub(in crate::plan) fn whole_subgroups(lanes: u32, caps: &DeviceCaps, tier: Tier) -> u32 {
    match (tier.subgroup(), &caps.subgroup_size) {
        (true, Some(size)) => (size.end() / lanes).max(1),
        _ => 1,
    }
}

/// 16 KiB of workgroup memory allow several workgroups on each core of a GPU, and every device has them.
pub(in crate::plan) fn workgroup_budget(caps: &DeviceCaps) -> u64 {
    u64::from(caps.max_workgroup_storage_bytes.min(16 << 10))
}

/// Keys of a lane: one load of the weights serves four of them, with the fewest registers.
const KEYS: u32 = 4;

/// A single row leaves room for more keys: fewer tiles, and so fewer barriers. On lavapipe 25.0 12 keys were 1.3 times as fast as 4, and
/// 16 no faster (8 heads, 1 row, 16384 keys, width 128, f32). Not measured on GPUs.
fn choose_keys(rows: u32, caps: &DeviceCaps) -> u32 {
    if caps.software && rows == 1 { 12 } else { KEYS }
}

/// Four groups a workgroup read the same keys at the same time, so that the first-level cache serves three of them.
fn choose_groups(problem: &AttentionProblem, tiling: Tiling, num_rows: u64, caps: &DeviceCaps, tier: Tier) -> u32 {
    let whole_subgroups = whole_subgroups(tiling.lanes, caps, tier);
    let wanted = if caps.software { 1 } else { num_rows.div_ceil(u64::from(tiling.rows)).clamp(1, 4) as u32 };
    let mut groups = wanted.next_multiple_of(whole_subgroups);
    while groups > whole_subgroups
        && (Tiling { groups, ..tiling }).storage_bytes(problem, caps, tier) > workgroup_budget(caps)
    {
        groups -= whole_subgroups;
    }
    groups
}

/// Enough workgroups to fill a large GPU, so that none of its cores waits long for the last; a software device has few cores, and needs only
/// enough to keep them all busy to the end. Each workgroup gets at least eight tiles of keys, or two where keys are selected or tiles small.
/// Partial results stay below 16 MiB.
fn choose_splits(problem: &AttentionProblem, tiling: Tiling, caps: &DeviceCaps) -> u32 {
    if walks_alone(problem, tiling) {
        return 1;
    }
    let (shape, rows) = (problem.shape(), RowSets::of(problem));
    let wanted_workgroups: u64 = if caps.software { 8 } else { 512 };
    let sets = u64::from(rows.num_sets) * u64::from(shape.batch_size);
    let workgroups = (rows.row_tiles(shape, tiling) * sets).max(1);
    let fewest_tiles = match (caps.software, tiling.sharing) {
        // A tile of several rows takes as long as two of one row.
        (false, Sharing::Columns) if tiling.rows > 1 => 1,
        (false, Sharing::Columns) => 2,
        (false, _) if problem.blocks.is_some() => 2,
        _ => 8,
    };
    // Splitting even a short window is needed to fill a few cores.
    let keys = if caps.software && problem.blocks.is_none() { shape.seq_len_kv.into() } else { walk_keys(problem) };
    let tiles = keys.div_ceil(u64::from(tiling.tile_kv()));
    let row_bytes = u64::from(shape.head_dim_v) * 4;
    let out_bytes = (sets * rows.rows_per_set(shape) * row_bytes).max(1);
    let most = (tiles / fewest_tiles).min((16 << 20) / out_bytes).clamp(1, Tiling::MAX_SPLITS.into());
    let mut splits = wanted_workgroups / workgroups;
    if tiling.sharing == Sharing::Columns && splits > 1 {
        splits *= waves(problem, keys / splits);
    }
    // At most MAX_SPLITS.
    splits.clamp(1, most) as u32
}

/// How often workgroups that limit each other by reading keys should fill a device. On an H200 512 of 128 invocations are all there at once,
/// and 1024 cost short walks a fifth (32 heads on 8, f16: 26.1 and 33.5 us for 16384 keys, 140.8 and 143.0 for 131072). But a wave that
/// takes long wants a second one, which fills cores that are done: 1024 workgroups read 2 MiB each of f32 at 4.36 TB/s of 4.37.
fn waves(problem: &AttentionProblem, keys: u64) -> u64 {
    let shape = problem.shape();
    let key_bytes = u64::from(shape.head_dim + shape.head_dim_v) * problem.dtype.size_bytes();
    if keys * key_bytes > 1 << 20 { 2 } else { 1 }
}
