//! Tile sizes of the kernels whose lanes share the row of a key: [`Sharing::Columns`].

use std::collections::BTreeMap;

use super::rows::RowSets;
use super::tiling::{Sharing, Tiling};
use super::tiling::{whole_subgroups, workgroup_budget};
use crate::kernels::modules;
use crate::shader::Module;
use crate::{AttentionProblem, DType, DeviceCaps, Tier};

/// Limit on the rows of these kernels. Each row costs registers, and with more rows arithmetic takes longer than memory.
const MOST_ROWS: u64 = 16;
/// Limit on the rows whose sums and queries fit the registers beside the keys and values in flight.
const ROWS: u64 = 8;
/// Limit on registers for queries, sums, scores and loads in flight. With some 30 for addresses and softmax, 4 workgroups share a core of
/// 65536: on an H200 with 4 rows 4 keys (112 by this count, 128 by the driver's) took 26 us, 8 keys as long and 2 keys 28.
const REGISTERS: u32 = 128;
/// Invocations of a workgroup. An H100 read as fast with 4 subgroups of 32 as with 8, and 3 % slower with one.
const INVOCATIONS: u32 = 128;
/// Up to this many keys, one workgroup walks alone: splitting saves trips to memory, but the merge costs a dispatch. On an H200 (32 heads on
/// 8) alone and in splits: 128 keys 5.1 and 6.6 us, 256 keys 6.9 and 6.8, 512 keys 10.7 and 8.3.
const ALONE_KEYS: u64 = 256;
/// Invocations of a workgroup that walks alone: with 512 of them 128 keys took 5.6 us, 256 keys as long.
const ALONE_INVOCATIONS: u32 = 256;

/// vec4 elements that are 16 bytes.
pub(in crate::plan) const fn chunk(dtype: DType) -> u32 {
    if matches!(dtype, DType::F32) { 1 } else { 2 }
}

/// vec4 of a row of `width4` for each of the lanes that share it.
pub(in crate::plan) const fn columns(width4: u32, lanes: u32, chunk: u32) -> u32 {
    width4.div_ceil(chunk * lanes) * chunk
}

/// Sizes of a tiling that follow from a problem's widths and types.
#[derive(Clone, Copy)]
pub(in crate::plan) struct ColumnsTiling {
    tiling: Tiling,
    chunk: u32,
    /// vec4 of one load of a key or value.
    per_load: u32,
    head_dim4: u32,
    head_dim_v4: u32,
    subgroups: bool,
    /// Groups that certainly share a subgroup.
    together: u32,
    /// Bytes of workgroup memory that rows are added up in at a time.
    budget: u64,
}

impl ColumnsTiling {
    pub(in crate::plan) fn new(problem: &AttentionProblem, tiling: Tiling, caps: &DeviceCaps, tier: Tier) -> Self {
        let shape = problem.shape();
        let [head_dim4, head_dim_v4] = [shape.head_dim, shape.head_dim_v].map(|width| width / 4);
        let chunk = chunk(problem.dtype);
        // A load of two vec4 must not reach past a row.
        let pairs = problem.aligned_rows && chunk == 2 && head_dim4.is_multiple_of(2) && head_dim_v4.is_multiple_of(2);
        let per_load = if pairs { 2 } else { 1 };
        let alone = walk_keys(problem) <= ALONE_KEYS;
        let budget = if alone { caps.max_workgroup_storage_bytes.into() } else { workgroup_budget(caps) };
        let mut of =
            Self { tiling, chunk, per_load, head_dim4, head_dim_v4, subgroups: tier.subgroup(), together: 1, budget };
        if let (true, Some(size)) = (of.spreads_scores(), &caps.subgroup_size) {
            of.together = (size.start() / tiling.lanes).max(1);
        }
        of
    }

    /// Whether the lanes of a group share out the scores of a tile: they must divide into whole halves, and each lane's into one row.
    pub(in crate::plan) fn spreads_scores(&self) -> bool {
        let Tiling { lanes, rows, keys, .. } = self.tiling;
        self.subgroups && keys.is_power_of_two() && rows.next_power_of_two() <= lanes
    }

    /// Results of a row that meet in workgroup memory.
    const fn joined(&self) -> u32 {
        self.tiling.groups / self.together
    }

    /// Rows that are added up at a time.
    fn summed_rows(&self) -> u32 {
        let rows = self.tiling.rows;
        let fits = |summed: &u32| rows.is_multiple_of(*summed) && self.bytes_with(*summed) <= self.budget;
        (1..=rows).rev().find(fits).unwrap_or(1)
    }

    /// Workgroup memory where `summed` rows are added up at a time: each row's results by group, and shares of scores where no shuffle
    /// adds them.
    fn bytes_with(&self, summed: u32) -> u64 {
        let [joined, summed] = [self.joined(), summed].map(u64::from);
        let numbers = (summed * joined * 4).next_multiple_of(16);
        let sums = summed * joined * u64::from(self.head_dim_v4) * 16 + 2 * numbers;
        if self.subgroups {
            return sums;
        }
        let reduced = u64::from(self.tiling.groups * self.tiling.rows * self.tiling.keys) * 4;
        sums + (reduced * (u64::from(self.tiling.lanes) + 1)).next_multiple_of(16) + reduced.next_multiple_of(16)
    }

    /// Whether these kernels suit a problem.
    pub(in crate::plan) fn suits(problem: &AttentionProblem) -> bool {
        RowSets::of(problem).rows_per_q_block() <= MOST_ROWS
    }

    /// The tiling for a problem, without its splits; `None` when workgroup memory is too small: a device whose subgroup size varies has many
    /// groups in each workgroup.
    pub(in crate::plan) fn choose(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier) -> Option<Tiling> {
        let num_rows = RowSets::of(problem).rows_per_q_block().clamp(1, MOST_ROWS);
        // Rows spread evenly over the tiles, at most 8 in each.
        let rows = num_rows.div_ceil(num_rows.div_ceil(ROWS)) as u32;
        let sharing = Sharing::Columns;
        let mut of =
            Self::new(problem, Tiling { lanes: 4, rows, keys: 8, groups: 1, num_splits: 1, sharing }, caps, tier);
        of.tiling.lanes = of.lanes(caps, tier);
        while of.tiling.keys > 1 && of.registers(problem.dtype) > REGISTERS {
            of.tiling.keys /= 2;
        }
        let whole_subgroups = whole_subgroups(of.tiling.lanes, caps, tier);
        // A workgroup that walks alone has a core to itself.
        let (wanted, storage) = match walk_keys(problem) <= ALONE_KEYS {
            true => (ALONE_INVOCATIONS, caps.max_workgroup_storage_bytes.into()),
            false => (INVOCATIONS, workgroup_budget(caps)),
        };
        let wanted = wanted.min(caps.max_invocations_per_workgroup);
        of.tiling.groups = (wanted / of.tiling.lanes).max(whole_subgroups);
        loop {
            let fits = of.tiling.storage_bytes(problem, caps, tier) <= storage;
            match of.tiling.groups / 2 {
                _ if fits => return Some(of.tiling),
                half if half >= whole_subgroups => of.tiling.groups = half.next_multiple_of(whole_subgroups),
                _ if of.tiling.keys > 1 && !tier.subgroup() => of.tiling.keys /= 2,
                _ => return None,
            }
        }
    }

    /// The largest number of lanes with which at most a quarter of their loads go past the rows' ends; else the number that fits rows best.
    /// More lanes make longer runs of memory: 4, 8 and 16 of them reached 2.87, 2.96 and 2.98 TB/s on an H100.
    fn lanes(&self, caps: &DeviceCaps, tier: Tier) -> u32 {
        let most = match (tier.subgroup(), &caps.subgroup_size) {
            (true, Some(size)) => (*size.start()).min(32),
            // One invocation sums up each score, from as many places as there are lanes.
            _ => 16,
        };
        let loads = |lanes: u32| {
            let of = |width4: u32| width4.div_ceil(self.chunk * lanes) * self.chunk * lanes;
            of(self.head_dim4) + of(self.head_dim_v4)
        };
        let needed = self.head_dim4 + self.head_dim_v4;
        let sizes = || (2..=most.ilog2()).rev().map(|log2| 1u32 << log2);
        sizes()
            .find(|&lanes| 4 * loads(lanes) <= 5 * needed)
            .or_else(|| sizes().min_by_key(|&lanes| loads(lanes)))
            .unwrap_or(4)
    }

    const fn columns(&self, width4: u32) -> u32 {
        columns(width4, self.tiling.lanes, self.chunk)
    }

    /// Registers of a lane for queries, sums, scores, and keys and values in flight.
    fn registers(&self, dtype: DType) -> u32 {
        let columns = self.columns(self.head_dim4) + self.columns(self.head_dim_v4);
        // 2 or 4.
        let words = dtype.size_bytes() as u32;
        self.tiling.rows * (4 * columns + self.tiling.keys) + self.tiling.keys * columns * words
    }

    /// vec4 of state that a lane keeps between parts of a walk: for each row its columns' sums and its maximum and sum.
    pub(in crate::plan) fn carried(&self) -> u32 {
        let columns = self.columns(self.head_dim_v4);
        if self.spreads_scores() { self.tiling.rows * columns + 1 } else { self.tiling.rows * (columns + 1) }
    }

    /// Workgroup memory that the kernels declare.
    pub(in crate::plan) fn storage_bytes(&self) -> u64 {
        self.bytes_with(self.summed_rows())
    }

    /// The members of `chunk` and `elem`, for each tensor. f16 are loaded as words: as f16 each of them takes a register while it is under
    /// way, on an H200 165 registers instead of 128.
    pub(in crate::plan) fn modules(&self, elem: &'static Module) -> [&'static Module; 2] {
        let chunk = if self.per_load == 2 { &modules::CHUNK_PAIR } else { &modules::CHUNK_ONE };
        [chunk, if elem == &modules::ELEM_F16 { &modules::ELEM_F16_PACKED } else { elem }]
    }

    /// Constants of the shader.
    pub(in crate::plan) fn constants(&self) -> BTreeMap<&'static str, u32> {
        let tiling = self.tiling;
        let mut constants = BTreeMap::from([
            ("LANES", tiling.lanes),
            ("ROWS", tiling.rows),
            ("KEYS", tiling.keys),
            ("GROUPS", tiling.groups),
            ("K_CHUNK", self.chunk),
            ("V_CHUNK", self.chunk),
            ("K_PER_LOAD", self.per_load),
            ("V_PER_LOAD", self.per_load),
            ("K_COLS", self.columns(self.head_dim4)),
            ("COLS", self.columns(self.head_dim_v4)),
            ("TILE_Q", tiling.tile_q()),
            ("TILE_KV", tiling.tile_kv()),
            ("WORKGROUP_SIZE", tiling.workgroup_size()),
            ("HEAD_DIM4", self.head_dim4),
            ("HEAD_DIM_V4", self.head_dim_v4),
            ("CARRIED", 0),
            ("JOINED", self.joined()),
            ("SUMMED_ROWS", self.summed_rows()),
        ]);
        if self.spreads_scores() {
            let values = tiling.rows.next_power_of_two() * tiling.keys;
            let spread = values.min(tiling.lanes);
            constants.extend([
                ("VALUES", values),
                ("SPREAD", spread),
                ("OWN", values / spread),
                ("TOGETHER", self.together),
            ]);
        } else {
            // One more than lanes, so that invocations that add neighbouring scores read different banks.
            constants.extend([("REDUCED", tiling.rows * tiling.keys), ("REDUCE_STRIDE", tiling.lanes + 1)]);
        }
        constants
    }
}

/// Whether a walk is so short that one workgroup goes through it alone.
pub(in crate::plan) fn walks_alone(problem: &AttentionProblem, tiling: Tiling) -> bool {
    tiling.sharing == Sharing::Columns && walk_keys(problem) <= ALONE_KEYS
}

/// The most keys that a tile of few rows goes through.
pub(in crate::plan) fn walk_keys(problem: &AttentionProblem) -> u64 {
    let shape = problem.shape();
    let keys = match &problem.blocks {
        Some(blocks) => blocks.most_keys_of_any(),
        None => problem.window().map_or(u64::MAX, |window| window - 1 + u64::from(shape.seq_len_q)),
    };
    keys.min(shape.seq_len_kv.into())
}
