//! Grids cut into dispatches that a device finishes in time.

use crate::DeviceCaps;

/// Consecutive places of a grid that the device gets as one dispatch. A place is one workgroup's work (in `search_tree`
/// one search's); the last stretch's workgroups may reach past the grid's end, where they do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// The first place.
    pub first: u32,
    /// The place after the last.
    pub end: u32,
    /// Workgroups along x, y and z.
    pub workgroups: [u32; 3],
    /// Tiles of each walk that earlier stretches over the same places went through.
    pub first_tile: u32,
}

/// How workgroups that walk too long are cut: into parts of so many tiles, between which their state lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) tiles: u32,
    /// Workgroups whose state fits the memory for it.
    pub(crate) most_workgroups: u32,
}

/// What the places of a grid cost: `tiles` of each, at most `most_tiles`, of so many operations.
pub(super) struct Costs<F> {
    pub(super) num_places: u32,
    pub(super) most_tiles: u64,
    pub(super) tile_operations: u64,
    pub(super) tiles: F,
}

impl<F: Fn(u32) -> u64> Costs<F> {
    /// Operations of all places.
    pub(super) fn operations(&self) -> u64 {
        (0..self.num_places).map(|place| (self.tiles)(place).saturating_mul(self.tile_operations)).sum()
    }

    /// Cuts the grid so that each stretch stays within the budget where it is more than one place.
    pub(super) fn cut(&self, parts: Option<Parts>, caps: &DeviceCaps) -> Vec<Stretch> {
        let budget = caps.budget.dispatch_operations();
        let (num_places, axis) = (self.num_places, caps.max_workgroups_per_dimension);
        let part = parts.map_or(u64::MAX, |parts| parts.tiles.into());
        let all = u64::from(num_places).saturating_mul(self.most_tiles).saturating_mul(self.tile_operations);
        if num_places == 0 {
            return Vec::new();
        }
        if all <= budget && self.most_tiles <= part {
            return vec![stretch(0..num_places, 0, caps)];
        }
        let mut stretches = Vec::new();
        let mut first = 0;
        while first < num_places {
            let (mut end, mut operations, mut longest) = (first, 0u64, 0);
            while end < num_places {
                let tiles = (self.tiles)(end);
                let more = tiles.min(part).saturating_mul(self.tile_operations);
                let full = operations.saturating_add(more) > budget;
                let crowded =
                    parts.is_some_and(|parts| tiles.max(longest) > part && end - first >= parts.most_workgroups);
                if end > first && (full || crowded) {
                    break;
                }
                (operations, longest) = (operations.saturating_add(more), tiles.max(longest));
                end += 1;
            }
            // Only past the grid's end may a folded dispatch have workgroups of no use: whole rows of the axis else.
            if end < num_places && end - first > axis {
                end = first + (end - first) / axis * axis;
            }
            let mut first_tile = 0;
            loop {
                stretches.push(stretch(first..end, first_tile, caps));
                // Within a walk, whose places fit 32 bits.
                first_tile += part.min(longest.max(1)) as u32;
                if u64::from(first_tile) >= longest {
                    break;
                }
            }
            first = end;
        }
        stretches
    }
}

/// One stretch, folded as it must be.
fn stretch(places: core::ops::Range<u32>, first_tile: u32, caps: &DeviceCaps) -> Stretch {
    // Each axis fits: a stretch has at most as many workgroups as its grid, which was seen to fit.
    let workgroups = caps.fold_grid((places.end - places.start).into()).map(|n| n as u32);
    Stretch { first: places.start, end: places.end, workgroups, first_tile }
}
