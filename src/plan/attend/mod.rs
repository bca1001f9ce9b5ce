//! Plans of attention: prefill, or split decode and its merge.

use core::ops::Range;
use std::collections::BTreeMap;

pub(in crate::plan) mod columns;
mod cost;
mod exponents;
mod limits;
pub(in crate::plan) mod matrix;
mod modify;
pub(in crate::plan) mod rows;
mod staged;
pub(in crate::plan) mod tiling;
mod view;

use columns::ColumnsTiling;
use cost::{PlaceOrder, Walks};
use exponents::Exponents;
use limits::storage_buffers_of;
use matrix::MatrixTiling;
pub(crate) use modify::PLACES as MODIFIER_PLACES;
use rows::RowSets;
use staged::StagedTiling;
pub use tiling::{Sharing, Tiling};

use super::modules::{elem_module, out_module, share_modules};
use super::sinks::sink_modules;
use super::{Dispatch, Parts, TunedAt, merge};
use crate::kernels::{self, modules};
use crate::shader::{Kernel, Module, Specialization, Taken};
use crate::{AttentionProblem, AttentionShape, DType, DeviceCaps, Error, Mask, MissedTier, Result, Tier};

/// The dispatches that compute an [`AttentionProblem`] on a device, and the workspace they need. A value: made once per
/// shape, printed with `{}`, compared in tests.
///
/// ```
/// use wattn::{AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, Mask};
/// let shape = AttentionShape {
///     batch_size: 1, seq_len_q: 1, seq_len_kv: 65536,
///     num_q_heads: 32, num_kv_heads: 8, head_dim: 128, head_dim_v: 128,
/// };
/// let problem = AttentionProblem::new(shape, DType::F16).with_mask(Mask::Causal);
/// let plan = AttentionPlan::new(&problem, &DeviceCaps::BASELINE)?;
/// assert_eq!(plan.dispatches().len(), 2); // splits of the keys, then their merge
/// println!("{plan}");
/// # Ok::<(), wattn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionPlan {
    pub(crate) problem: AttentionProblem,
    pub(crate) dispatches: Vec<Dispatch>,
    pub(in crate::plan) exponents: Option<Exponents>,
    pub(in crate::plan) tier: Tier,
    pub(in crate::plan) tiling: Tiling,
    pub(in crate::plan) storage_bytes: u64,
    /// vec4 of state that an invocation hands from one part of a cut walk to the next.
    carried: u32,
    parts: Option<Parts>,
    /// The class whose measured tiling was taken, if any.
    pub(in crate::plan) tuned: Option<TunedAt>,
    /// Why [`Tier::Matrix`] was not taken although the device reports its features.
    pub(in crate::plan) matrix_fault: Option<String>,
    /// The better tier that the device could have if it were opened with its features.
    pub(in crate::plan) missed: Option<MissedTier>,
}

impl AttentionPlan {
    /// Plans with the best tier that the device offers for the problem.
    ///
    /// # Errors
    /// The errors of [`AttentionProblem::validate`], and [`Error::Limit`] when the problem passes a limit of the device.
    ///
    /// # Cost
    /// Arithmetic only.
    pub fn new(problem: &AttentionProblem, caps: &DeviceCaps) -> Result<Self> {
        problem.validate()?;
        let plan = Self::with_tier(problem, caps, Self::best_tier(problem, caps))?;
        if caps.tier.is_some() {
            return Ok(plan);
        }
        let as_reported = |caps: &DeviceCaps| Self::best_tier(problem, caps).matrix();
        let f16 = [problem.dtype, problem.out_dtype].contains(&DType::F16);
        let missed = caps.missed(f16, |caps| Self::best_tier(problem, caps));
        Ok(Self { matrix_fault: caps.fault_behind(as_reported), missed, ..plan })
    }

    /// The tier of [`AttentionPlan::new`]: [`Tier::Matrix`] for f16 tensors, and for bf16 where [the problem allows
    /// it](AttentionProblem::with_bf16_by_f16_matrices), if there are enough rows to fill matrices and the device has them in hardware;
    /// else [`DeviceCaps::best_tier`]. A tier measured for the problem takes precedence, and over that the tier that the device is [held
    /// to](DeviceCaps::with_tier).
    #[must_use]
    pub fn best_tier(problem: &AttentionProblem, caps: &DeviceCaps) -> Tier {
        if let Some(tier) = caps.tier {
            return tier;
        }
        let rows = RowSets::of(problem).rows_per_q_block();
        let matrices = caps.matrix_edge().is_some_and(|edge| {
            // A software device multiplies f16 one by one.
            problem.least_matrix_rows(edge).is_some_and(|least| rows >= least.into()) && !caps.software
                // A device with little workgroup memory may have no room for a tile.
                && Tiling::choose(problem, caps, Tier::Matrix).is_ok()
        });
        let by_rules = if matrices { Tier::Matrix } else { caps.best_tier() };
        // Tuning never measures bf16 by matrices.
        let measured = if problem.is_scaled(by_rules) { None } else { caps.tuned_attention(problem, by_rules) };
        measured.map_or(by_rules, |(tier, ..)| tier)
    }

    /// Plans with one tier.
    ///
    /// # Errors
    /// The errors of [`AttentionPlan::new`], [`Error::MissingFeature`] when the device lacks the tier, and
    /// [`Error::FaultyFeature`] when it was tried and does not work.
    pub fn with_tier(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier) -> Result<Self> {
        problem.validate()?;
        caps.require(tier)?;
        problem.check_tier(tier)?;
        let planned = || Self::with_tiling(problem, caps, tier, Tiling::choose(problem, caps, tier)?);
        Self::of_tuning(problem, caps, tier).map_or_else(planned, Ok)
    }

    /// Plans with one tier and one tiling, for tests and tuning.
    ///
    /// # Errors
    /// The errors of [`AttentionPlan::with_tier`], and [`Error::Invalid`] when the tiling breaks a rule.
    pub fn with_tiling(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier, tiling: Tiling) -> Result<Self> {
        problem.validate()?;
        caps.require(tier)?;
        problem.check_tier(tier)?;
        tiling.validate(problem, caps, tier)?;
        let shape = problem.shape();
        let rows = RowSets::of(problem);
        let num_rows = rows.rows_per_set(shape);
        let out_rows = shape.out_rows();
        // Kernels count rows and vec4 of out in 32 bits.
        let (rows_available, vectors) = (u64::from(u32::MAX / 2), out_rows * u64::from(shape.head_dim_v / 4));
        for (what, needed, available) in [
            ("rows of a KV head", num_rows, rows_available),
            ("rows of out, four columns each", vectors, u32::MAX.into()),
        ] {
            if needed > available {
                return Err(Error::TooLarge { what, needed, available });
            }
        }
        let carried = match (caps.edge_of(tier), tiling.sharing) {
            (Some(edge), _) => MatrixTiling::new(problem, tiling, edge).carried(),
            (None, Sharing::Columns) => ColumnsTiling::new(problem, tiling, caps, tier).carried(),
            // The columns of each row, and its maximum and sum.
            (None, Sharing::Keys | Sharing::Rows | Sharing::Tiles) => {
                tiling.rows * (shape.head_dim_v.div_ceil(4).div_ceil(tiling.lanes) + 1)
            }
        };
        let walks = Walks::new(problem, tiling, carried);
        let kernel: &'static Kernel =
            if tiling.num_splits == 1 { &kernels::ATTEND_PREFILL } else { &kernels::ATTEND_DECODE };
        let mut attend = specialize_attend(kernel, problem, tier, tiling, caps);
        let parts = walks.parts(caps);
        let mut cut = attend.clone();
        cut.cut_walks(carried);
        // The device may not allow another storage buffer; then walks stay whole.
        let parts = parts.filter(|_| cut.num_storage_buffers() <= caps.max_storage_buffers);
        if parts.is_some() {
            attend = cut;
        }
        let (needed, available) = (attend.num_storage_buffers(), caps.max_storage_buffers);
        if needed > available {
            let limit = storage_buffers_of(problem);
            return Err(Error::Limit { limit, needed: needed.into(), available: available.into() });
        }
        let stretches = |num_places| walks.costs(num_places, PlaceOrder::of(caps, tier)).cut(parts, caps);
        let exponents = Exponents::of(problem, tier);
        let found = exponents.map(|exponents| exponents.dispatch(problem, caps)).transpose()?;
        let mut dispatches: Vec<_> = found.into_iter().collect();
        dispatches.push(Dispatch::cut(attend, walks.num_places(), caps, stretches)?);
        if kernel == &kernels::ATTEND_DECODE {
            let merge = merge::Parts { num_parts: tiling.num_splits, num_rows: out_rows, head_dim_v: shape.head_dim_v };
            dispatches.push(merge.dispatch(out_module(problem.out_dtype, tier), problem.lse, problem.sinks, caps)?);
        }
        let storage_bytes = tiling.storage_bytes(problem, caps, tier);
        let plan = Self {
            problem: problem.clone(),
            dispatches,
            exponents,
            tier,
            tiling,
            storage_bytes,
            carried,
            parts,
            tuned: None,
            matrix_fault: None,
            missed: None,
        };
        let (needed, available) = (plan.workspace_bytes(), caps.max_storage_binding_bytes);
        if needed > available {
            return Err(Error::Limit { limit: "max_storage_buffer_binding_size", needed, available });
        }
        Ok(plan)
    }

    /// The problem.
    #[must_use]
    pub const fn problem(&self) -> &AttentionProblem {
        &self.problem
    }

    /// The dispatches, in the order in which they are encoded.
    #[must_use]
    pub fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }

    /// The tier that the kernels use.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// The tile sizes.
    #[must_use]
    pub const fn tiling(&self) -> Tiling {
        self.tiling
    }

    /// The plan with a constant of its kernels replaced. For tests that make kernels wrong.
    #[doc(hidden)]
    #[must_use]
    pub fn with_constant(mut self, name: &'static str, value: u32) -> Self {
        super::replace_constant(&mut self.dispatches, name, value);
        self
    }

    /// Bytes of workgroup memory that the attending kernel declares.
    #[must_use]
    pub const fn workgroup_storage_bytes(&self) -> u64 {
        self.storage_bytes
    }

    /// Bytes of scratch memory for data that dispatches hand on: partial results of splits, the state of cut walks, exponents of heads.
    /// Never proportional to `seq_len_q * seq_len_kv`.
    #[must_use]
    pub fn workspace_bytes(&self) -> u64 {
        self.exponents_range().end
    }

    /// Where the partial out lie in the workspace, in bytes. Ranges begin at multiples of 256, the largest alignment a device may ask for.
    pub(crate) fn partial_out_range(&self) -> Range<u64> {
        let row_bytes = u64::from(self.problem.shape().head_dim_v) * 4;
        0..(self.num_partials() * row_bytes).next_multiple_of(256)
    }

    /// Where the partial lse lie in the workspace.
    pub(crate) fn partial_lse_range(&self) -> Range<u64> {
        let begin = self.partial_out_range().end;
        // A vec4 each.
        begin..begin + self.num_partials() * 16
    }

    /// Where the state of cut walks lies in the workspace.
    pub(crate) fn carried_range(&self) -> Range<u64> {
        let end = self.partial_lse_range().end;
        let cut = self.attending().stretches.iter().filter(|stretch| stretch.first_tile > 0);
        match cut.map(|stretch| stretch.end - stretch.first).max() {
            None => end..end,
            Some(most) => {
                let begin = end.next_multiple_of(256);
                begin..begin + u64::from(most) * Walks::new(&self.problem, self.tiling, self.carried).carried_bytes()
            }
        }
    }

    /// The ranges of the workspace in bytes, by the names of the kernels' bindings. For tests that run kernels without a device.
    #[doc(hidden)]
    #[must_use]
    pub fn workspace_views(&self) -> [(&'static str, Range<u64>); 4] {
        [
            ("workspace", 0..self.workspace_bytes()),
            ("partial_out", self.partial_out_range()),
            ("partial_lse", self.partial_lse_range()),
            ("exponents", self.exponents_range()),
        ]
    }

    /// Operations of all workgroups, by the estimate that budgets count in. The merge is not counted.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn operations(&self) -> u64 {
        let walks = Walks::new(&self.problem, self.tiling, self.carried);
        // The grid fits, as checked in `new`. The order of places does not change the sum.
        walks.costs(walks.num_places() as u32, PlaceOrder::Plain).operations()
    }

    /// Rows of partial results.
    fn num_partials(&self) -> u64 {
        if self.tiling.num_splits == 1 { 0 } else { u64::from(self.tiling.num_splits) * self.out_rows() }
    }

    /// Tiles of a walk in one dispatch.
    pub(crate) fn part_tiles(&self) -> u32 {
        self.parts.map_or(0, |parts| parts.tiles)
    }

    /// The query heads and queries whose rows share tiles.
    pub(crate) fn row_sets(&self) -> RowSets {
        RowSets::of(&self.problem)
    }

    /// Tiles of query rows of one set of heads of one sequence.
    pub(crate) fn row_tiles(&self) -> u64 {
        self.row_sets().row_tiles(self.problem.shape(), self.tiling)
    }

    pub(crate) fn out_rows(&self) -> u64 {
        let shape = self.problem.shape();
        u64::from(shape.batch_size) * u64::from(shape.seq_len_q) * u64::from(shape.num_q_heads)
    }
}

fn specialize_attend(
    kernel: &'static Kernel,
    problem: &AttentionProblem,
    tier: Tier,
    tiling: Tiling,
    caps: &DeviceCaps,
) -> Specialization {
    let shape = problem.shape();
    // Lanes hand on what is looked up in lists.
    let (walk, gather) = match problem.blocks {
        Some(_) => (&modules::WALK_SELECTED, &modules::GATHER_GROUP),
        None => (&modules::WALK_RANGE, &modules::GATHER_LANE),
    };
    let elem = elem_module(problem.dtype, tier, caps);
    let [chunk, elem] = match (caps.edge_of(tier), tiling.sharing) {
        (None, Sharing::Columns) => ColumnsTiling::new(problem, tiling, caps, tier).modules(elem),
        _ => [&modules::CHUNK_ONE, elem],
    };
    let formats = ["q", "k", "v"].map(|tensor| Taken::for_tensor(tensor, elem));
    let chunks = ["k", "v"].map(|tensor| Taken::for_tensor(tensor, chunk));
    let mut modules = vec![
        &modules::ATTEND_PARAMS,
        &modules::STRETCH,
        modules::lengths(problem.seq_lens_kv),
        &modules::ATTEND_PLACE,
        walk,
        &modules::PAGING_CONTIGUOUS,
        &modules::ROWS_OF_K,
        &modules::ROWS_OF_V,
        &modules::NON_FINITE,
        &modules::ATTEND_TILE,
    ];
    let mut constants = match (caps.edge_of(tier), tiling.sharing) {
        (Some(edge), _) => {
            let values = if caps.matrix_from_vec4 { &modules::VALUES_VEC4 } else { &modules::VALUES_SCALAR };
            modules.extend(matrix::modules(edge, caps));
            let matrices = MatrixTiling::new(problem, tiling, edge);
            let fold = if matrices.fold_tiles() > 0 { &modules::FOLD_SUMS } else { &modules::FOLD_NONE };
            let factors = if problem.is_scaled(tier) { &modules::FACTORS_SCALED } else { &modules::FACTORS_STORED };
            modules.extend([values, &modules::SHUFFLE_WORKGROUP, factors, &modules::RESUME_NONE, fold]);
            modules.extend([&modules::MATRIX_LANES, &modules::ROWS_MATRIX]);
            matrices.constants()
        }
        (None, Sharing::Columns) => {
            let (share, reduce) = share_modules(tiling.lanes, tier, caps);
            let columns = ColumnsTiling::new(problem, tiling, caps, tier);
            modules.extend([share, &modules::RESUME_NONE, &modules::GROUP_SUMS]);
            match columns.spreads_scores() {
                true => modules.extend([&modules::LANES, &modules::ROWS_SPREAD]),
                false => modules.extend([reduce, &modules::ROWS_COLUMNS]),
            }
            columns.constants()
        }
        (None, Sharing::Tiles) => {
            let (share, reduce) = share_modules(tiling.lanes, tier, caps);
            let gather = if problem.blocks.is_some() { &modules::GATHER_WORKGROUP } else { gather };
            modules.extend([gather, share, reduce, &modules::RESUME_NONE, &modules::ROWS_STAGED]);
            let mut constants = scalar_constants(shape, tier, tiling);
            constants.extend(StagedTiling::new(problem, tiling, caps, tier).constants());
            constants
        }
        (None, Sharing::Keys | Sharing::Rows) => {
            let (share, reduce) = share_modules(tiling.lanes, tier, caps);
            let queries = queries_module(shape, tier, tiling, caps);
            modules.extend([gather, share, reduce, queries, &modules::RESUME_NONE, &modules::ROWS_KEYS]);
            scalar_constants(shape, tier, tiling)
        }
    };
    let order = PlaceOrder::of(caps, tier);
    let mut switches = BTreeMap::from([
        ("LONG_AND_SHORT", order == PlaceOrder::LongAndShort),
        ("HEADS_FIRST", order == PlaceOrder::HeadsFirst),
    ]);
    if let Some(blocks) = &problem.blocks {
        constants.insert("BLOCK_SIZE", blocks.block_size);
        switches.insert("CAUSAL", problem.mask == Mask::Causal);
    }
    if kernel == &kernels::ATTEND_PREFILL {
        modules.extend([out_module(problem.out_dtype, tier), modules::lse(problem.lse)]);
    }
    let arrays = super::arrays_of(caps);
    let modules = formats.into_iter().chain(chunks).chain(Taken::all(modules)).collect();
    let mut specialization = Specialization { kernel, modules, constants, switches, arrays, chain: Vec::new() };
    modify::add_modifiers(&mut specialization, problem);
    let sinks = problem.sinks.filter(|_| kernel == &kernels::ATTEND_PREFILL);
    specialization.modules.extend(sink_modules(sinks));
    if tier.matrix() {
        specialization.push(if sinks.is_some() { &modules::KEPT_SINK_SHARED } else { &modules::KEPT_SINK_NONE });
    }
    if kernel == &kernels::ATTEND_DECODE || problem.is_scaled(tier) {
        specialization.add_workspace();
    }
    specialization
}

/// Limit on an invocation's memory for its queries: WebGPU's limit for all its private variables.
const MOST_KEPT_BYTES: u32 = 8 << 10;

const fn queries_module(shape: &AttentionShape, tier: Tier, tiling: Tiling, caps: &DeviceCaps) -> &'static Module {
    let kept = tiling.slots(tier) * shape.head_dim * 4;
    if caps.software && kept <= MOST_KEPT_BYTES { &modules::Q_CACHED } else { &modules::Q_STREAMED }
}

/// Constants of all members of `rows` without matrices; `staged` has further ones.
fn scalar_constants(shape: &AttentionShape, tier: Tier, tiling: Tiling) -> BTreeMap<&'static str, u32> {
    BTreeMap::from([
        ("LANES", tiling.lanes),
        ("ROWS", tiling.rows),
        ("KEYS", tiling.keys),
        ("GROUPS", tiling.groups),
        ("COLS", shape.head_dim_v.div_ceil(4).div_ceil(tiling.lanes)),
        ("REDUCED", tiling.rows),
        ("REDUCE_STRIDE", tiling.lanes),
        ("SHARE", tiling.share(tier)),
        ("SLOTS", tiling.slots(tier)),
        ("TILE_Q", tiling.tile_q()),
        ("TILE_KV", tiling.tile_kv()),
        ("WEIGHTS_STRIDE", tiling.weights_stride()),
        ("WORKGROUP_SIZE", tiling.workgroup_size()),
        ("HEAD_DIM4", shape.head_dim / 4),
        ("HEAD_DIM_V4", shape.head_dim_v / 4),
        ("CARRIED", 0),
    ])
}
