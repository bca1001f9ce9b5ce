//! Cuts grids into dispatches that a device finishes in time.

use crate::{DeviceCaps, Error, Result};

/// Limit on the dispatches of one call: days of a device's time. Each has a uniform of 256 bytes.
const MOST_STRETCHES: u64 = 1 << 22;

/// The uniforms of this many stretches take a few megabytes.
const MANY_STRETCHES: u64 = 1 << 16;

/// Grids with more places count each as the longest, so that planning takes no longer than the dispatches.
const MOST_COUNTED: u32 = 1 << 22;

/// Consecutive places of a grid that are one dispatch. A place is the work of one workgroup (in `search_tree`, one of its searches); the
/// last stretch may have workgroups past the grid's end, which do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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

/// How long walks are cut: into parts of `tiles` tiles, between which the workgroup's state lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) tiles: u32,
    /// Number of workgroups whose state fits the memory for it.
    pub(crate) most_workgroups: u32,
}

/// Cost of a grid: place `p` takes `tiles(p) <= most_tiles` tiles of `tile_operations` each.
pub(super) struct Costs<F> {
    pub(super) num_places: u32,
    pub(super) most_tiles: u64,
    pub(super) tile_operations: u64,
    pub(super) tiles: F,
}

impl<F: Fn(u32) -> u64> Costs<F> {
    /// Tiles of a place, at least 1.
    fn tiles(&self, place: u32) -> u64 {
        if self.num_places > MOST_COUNTED { self.most_tiles } else { (self.tiles)(place) }
    }

    /// Operations of all places.
    pub(super) fn operations(&self) -> u64 {
        if self.num_places > MOST_COUNTED {
            return u64::from(self.num_places).saturating_mul(self.most_tiles).saturating_mul(self.tile_operations);
        }
        (0..self.num_places)
            .fold(0u64, |sum, place| sum.saturating_add(self.tiles(place).saturating_mul(self.tile_operations)))
    }

    /// Cuts the grid so that each stretch of more than one place stays within the budget.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before there are more than [`MOST_STRETCHES`].
    pub(super) fn cut(&self, parts: Option<Parts>, caps: &DeviceCaps) -> Result<Vec<Stretch>> {
        let budget = caps.budget.dispatch_operations();
        let num_places = self.num_places;
        let part = parts.map_or(u64::MAX, |parts| parts.tiles.into());
        let all = u64::from(num_places).saturating_mul(self.most_tiles).saturating_mul(self.tile_operations);
        if num_places == 0 {
            return Ok(Vec::new());
        }
        if all <= budget && self.most_tiles <= part {
            return Ok(vec![stretch(0..num_places, 0, caps)]);
        }
        // They are counted before memory is allocated for them.
        if all / budget.max(1) > MANY_STRETCHES {
            let mut count = 0;
            self.each_stretch(parts, caps, |_| {
                count += 1;
                count <= MOST_STRETCHES
            });
            if count > MOST_STRETCHES {
                let needed = (self.operations() / budget.max(1)).max(count);
                return Err(Error::TooLarge { what: "dispatches of a call", needed, available: MOST_STRETCHES });
            }
        }
        let mut stretches = Vec::new();
        self.each_stretch(parts, caps, |stretch| {
            stretches.push(stretch);
            true
        });
        Ok(stretches)
    }

    /// Passes the stretches to `take` in order, until it returns false.
    fn each_stretch(&self, parts: Option<Parts>, caps: &DeviceCaps, mut take: impl FnMut(Stretch) -> bool) {
        let (num_places, axis) = (self.num_places, caps.max_workgroups_per_dimension);
        let part = parts.map_or(u64::MAX, |parts| parts.tiles.into());
        let mut first = 0;
        while first < num_places {
            let (mut end, longest) = self.reach(first, parts, caps.budget.dispatch_operations());
            // Only a folded dispatch that reaches the grid's end may have superfluous workgroups; others are whole rows of the axis.
            if end < num_places && end - first > axis {
                end = first + (end - first) / axis * axis;
            }
            let mut first_tile = 0;
            loop {
                if !take(stretch(first..end, first_tile, caps)) {
                    return;
                }
                // Within a walk, whose places fit 32 bits.
                first_tile += part.min(longest.max(1)) as u32;
                if u64::from(first_tile) >= longest {
                    break;
                }
            }
            first = end;
        }
    }

    /// The end of a stretch that begins at `first`, and the tiles of its longest place.
    fn reach(&self, first: u32, parts: Option<Parts>, budget: u64) -> (u32, u64) {
        let part = parts.map_or(u64::MAX, |parts| parts.tiles.into());
        let crowd = |longest| parts.filter(|_| longest > part).map_or(u32::MAX, |parts| parts.most_workgroups);
        let cost = |tiles: u64| tiles.min(part).saturating_mul(self.tile_operations);
        if self.num_places > MOST_COUNTED {
            let places = (budget / cost(self.most_tiles).max(1)).clamp(1, crowd(self.most_tiles).into());
            let end = u64::from(first).saturating_add(places).min(self.num_places.into());
            return (end as u32, self.most_tiles); // at most `num_places`
        }
        let (mut end, mut operations, mut longest) = (first, 0u64, 0);
        while end < self.num_places {
            let tiles = self.tiles(end);
            let full = operations.saturating_add(cost(tiles)) > budget;
            if end > first && (full || end - first >= crowd(tiles.max(longest))) {
                break;
            }
            (operations, longest) = (operations.saturating_add(cost(tiles)), tiles.max(longest));
            end += 1;
        }
        (end, longest)
    }
}

/// One stretch, folded into two axes where necessary.
fn stretch(places: core::ops::Range<u32>, first_tile: u32, caps: &DeviceCaps) -> Stretch {
    // Each axis fits: a stretch has at most as many workgroups as its grid, which was checked.
    let workgroups = caps.fold_grid((places.end - places.start).into()).map(|n| n as u32);
    Stretch { first: places.start, end: places.end, workgroups, first_tile }
}
