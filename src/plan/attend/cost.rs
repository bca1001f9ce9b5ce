//! The cost of each workgroup of an attention: tiles of its walk, as the shader family `walk` cuts it. Lengths that come from a buffer are
//! unknown here and count as the longest.

use super::rows::RowSets;
use super::tiling::{Sharing, Tiling};
use crate::plan::{Costs, Parts};
use crate::{AttentionProblem, DeviceCaps, DispatchBudget, Tier};

/// Limit on the memory for the state of workgroups whose walks are cut: the same as for partial results.
const CARRIED_BYTES: u64 = 16 << 20;

/// The order in which workgroups start, as in `attend_place.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::plan) enum PlaceOrder {
    /// Set after set, the last rows first.
    Plain,
    /// Set after set, last and first rows in turn: for software devices, where a core gets a run of neighbours.
    LongAndShort,
    /// The last rows of all sets first. A tile of rows that multiplies matrices is large and its walk is long: the last set's, if started
    /// last, would run alone.
    HeadsFirst,
}

impl PlaceOrder {
    pub(in crate::plan) const fn of(caps: &DeviceCaps, tier: Tier) -> Self {
        if caps.software {
            Self::LongAndShort
        } else if tier.matrix() {
            Self::HeadsFirst
        } else {
            Self::Plain
        }
    }
}

/// The grid of one attention.
#[derive(Clone, Copy)]
pub(in crate::plan) struct Walks<'a> {
    problem: &'a AttentionProblem,
    tiling: Tiling,
    rows: RowSets,
    row_tiles: u64,
    /// vec4 of an invocation's state.
    carried: u32,
}

impl<'a> Walks<'a> {
    pub(in crate::plan) fn new(problem: &'a AttentionProblem, tiling: Tiling, carried: u32) -> Self {
        let rows = RowSets::of(problem);
        Self { problem, tiling, rows, row_tiles: rows.row_tiles(problem.shape(), tiling), carried }
    }

    pub(in crate::plan) fn num_places(&self) -> u64 {
        let sets = u64::from(self.rows.num_sets) * u64::from(self.problem.shape().batch_size);
        self.row_tiles * sets * u64::from(self.tiling.num_splits)
    }

    /// Operations of a tile: a multiply-add for each row and column of k and v, and one fetch for all rows. Where tiles are shared, rows are
    /// fetched again for each tile.
    fn tile_operations(&self) -> u64 {
        let (shape, tile_q) = (self.problem.shape(), u64::from(self.tiling.tile_q()));
        let columns = u64::from(shape.head_dim) + u64::from(shape.head_dim_v);
        let rows = if self.tiling.sharing == Sharing::Tiles { tile_q * u64::from(shape.head_dim) } else { 0 };
        u64::from(self.tiling.tile_kv()) * columns * (tile_q + DispatchBudget::FETCH) + rows * DispatchBudget::FETCH
    }

    /// Tiles of the longest walk.
    fn most_tiles(&self) -> u64 {
        let tile_q = self.tiling.tile_q();
        let queries = u64::from(tile_q.div_ceil(self.rows.heads_per_set)) + 1;
        let keys = self.problem.most_keys_walked(queries, tile_q);
        self.tiles(keys).div_ceil(self.tiling.num_splits.into()).max(1)
    }

    fn tiles(&self, keys: u64) -> u64 {
        keys.div_ceil(self.tiling.tile_kv().into())
    }

    /// Tiles of one workgroup: its walk, or its split of the walk.
    fn tiles_of(&self, place: u32, order: PlaceOrder) -> u64 {
        let (shape, splits) = (self.problem.shape(), u64::from(self.tiling.num_splits));
        let (row, split) = (u64::from(place) / splits, u64::from(place) % splits);
        let (last, index) = (self.row_tiles - 1, row % self.row_tiles);
        let row_tile = match (order, index % 2) {
            (PlaceOrder::LongAndShort, 1) => index / 2,
            (PlaceOrder::LongAndShort, _) => last - index / 2,
            (PlaceOrder::Plain, _) => last - index,
            (PlaceOrder::HeadsFirst, _) => last - row / (u64::from(self.rows.num_sets) * u64::from(shape.batch_size)),
        };
        let per_block = self.rows.tiles_per_q_block(self.tiling).max(1);
        let first_row = row_tile / per_block * self.rows.rows_per_q_block()
            + row_tile % per_block * u64::from(self.tiling.tile_q());
        let last_row = (first_row + u64::from(self.tiling.tile_q()) - 1).min(self.rows.rows_per_set(shape) - 1);
        // Fewer than the queries, which fit 32 bits.
        let query = |row: u64| (row / u64::from(self.rows.heads_per_set)) as u32;
        let queries = [first_row.min(last_row), last_row].map(query);
        let tiles = self.tiles(self.problem.keys_walked(queries, self.tiling.tile_q()));
        // A workgroup without keys still stores its rows.
        (tiles * (split + 1) / splits - tiles * split / splits).max(1)
    }

    pub(in crate::plan) fn costs(&self, num_places: u32, order: PlaceOrder) -> Costs<impl Fn(u32) -> u64> {
        let walks = *self;
        let (most_tiles, tile_operations) = (self.most_tiles(), self.tile_operations());
        Costs { num_places, most_tiles, tile_operations, tiles: move |place| walks.tiles_of(place, order) }
    }

    /// Bytes of the state that a workgroup keeps between two parts.
    pub(in crate::plan) fn carried_bytes(&self) -> u64 {
        u64::from(self.tiling.workgroup_size()) * u64::from(self.carried) * 16
    }

    /// How walks are cut; `None` where all are short. Whether they are cut depends on the problem only, never on a measurement, so the same
    /// kernel is always chosen.
    pub(in crate::plan) fn parts(&self, caps: &DeviceCaps) -> Option<Parts> {
        let (most_tiles, tile) = (self.most_tiles(), self.tile_operations());
        if most_tiles.saturating_mul(tile) <= caps.budget.whole_operations() {
            return None;
        }
        // Workgroups that fill a device; those that multiply matrices are large.
        let filling: u64 = match (caps.software, self.tiling.sharing) {
            (true, _) => 8,
            (false, Sharing::Rows) => 256,
            (false, _) => 512,
        };
        let part = caps.budget.workgroup_operations().min(caps.budget.dispatch_operations() / filling);
        // A walk has fewer than 2^30 tiles.
        let tiles = (part / tile).clamp(1, most_tiles) as u32;
        let most_workgroups = (CARRIED_BYTES / self.carried_bytes()).max(1) as u32;
        Some(Parts { tiles, most_workgroups })
    }
}
