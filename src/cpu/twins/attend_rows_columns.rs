//! The twin of `rows/columns.wgsl` and `rows/spread.wgsl`, for the twins of `attend_prefill` and `attend_decode`.

use super::attend_rows::{Call, MASKED, RowTile};
use super::walk::TileClass;
use crate::{Element, LSE_EMPTY};

/// One group's sums for a row.
struct Group {
    max: f32,
    sum: f32,
    out: Vec<f32>,
}

impl<T: Element> Call<'_, T> {
    /// One row against the walk of its tile: each group takes some keys of every tile, and the groups' results are added at the end. The
    /// lanes of a group add a score's terms, weights and the groups of a subgroup in their own order.
    pub(super) fn attend_row_columns(&self, tile: &RowTile, row: u32, out: &mut [f32]) -> f32 {
        let tiling = self.tiling();
        let row = self.row(tile, row);
        let mut non_finite = false;
        let mut groups: Vec<Group> =
            (0..tiling.groups).map(|_| Group { max: MASKED, sum: 0.0, out: vec![0.0; out.len()] }).collect();
        for tile_begin in tile.walk.places.clone().step_by(tiling.tile_kv() as usize) {
            // A kernel also goes through tiles that no row sees, which changes nothing.
            let whole = match tile.walk.class(tile_begin, tiling.tile_kv()) {
                TileClass::Empty => continue,
                TileClass::Partial => false,
                TileClass::Full => true,
            };
            let scores = row.scores(tile_begin..tile_begin + tiling.tile_kv());
            non_finite |= scores.iter().any(|score| score.is_nan());
            for (g, group) in groups.iter_mut().enumerate() {
                let own = || scores.iter().enumerate().skip(g).step_by(tiling.groups as usize);
                let new_max = own().fold(group.max, |max, (_, &score)| max.max(score));
                let rescale = (group.max - new_max).exp2().max(f32::MIN_POSITIVE);
                group.max = new_max;
                group.sum *= rescale;
                group.out.iter_mut().for_each(|x| *x *= rescale);
                for (at, &score) in own() {
                    let weight = if score > MASKED { (score - new_max).exp2().max(f32::MIN_POSITIVE) } else { 0.0 };
                    group.sum += weight;
                    // A masked key may hold NaN.
                    if whole || weight != 0.0 {
                        for (to, from) in group.out.iter_mut().zip(row.value(tile_begin + at as u32)) {
                            *to = weight.mul_add(from.to_f32(), *to);
                        }
                    }
                }
            }
        }

        let max = groups.iter().fold(MASKED, |max, group| max.max(group.max));
        // The sums of a group that saw no key are 0.
        let share = |group: &Group| (group.max - max).exp2().max(f32::MIN_POSITIVE);
        let sum: f32 = groups.iter().map(|group| group.sum * share(group)).sum();
        if non_finite || max == f32::INFINITY {
            out.fill(f32::NAN);
            return f32::NAN;
        }
        out.fill(0.0);
        if sum == 0.0 {
            return LSE_EMPTY;
        }
        for group in &groups {
            out.iter_mut().zip(&group.out).for_each(|(to, from)| *to = share(group).mul_add(*from, *to));
        }
        out.iter_mut().for_each(|x| *x /= sum);
        (max + sum.log2()) * core::f32::consts::LN_2
    }
}
