//! The twin of `shaders/rows/matrix.wgsl`, for the twins of `attend_prefill` and `attend_decode`.

use half::f16;

use super::attend_rows::{Call, MASKED, RowTile};
use crate::kernels::attend_prefill::{SHIFT, SLACK};
use crate::{Element, LSE_EMPTY, Tiling};

impl<T: Element> Call<'_, T> {
    /// One row against the walk of its tile. Weights are rounded to f16 before they are multiplied by values; sums are rescaled only when a
    /// score passes the row's reference by [`SLACK`], and are folded every few tiles. A matrix product adds in an order of its own.
    pub(super) fn attend_row_matrix(&self, tile: &RowTile, row: u32, out: &mut [f32]) -> f32 {
        let tiling: Tiling = self.tiling();
        let (tile_kv, parts) = (tiling.tile_kv(), (tiling.lanes / tiling.rows).max(1));
        let [_, head] = self.place(tile, row);
        let out_scale = self.scaled.map_or(1.0, |scaled| scaled.out_scale(tile.batch, head));
        let row = self.row(tile, row);

        out.fill(0.0);
        let mut folded = vec![0.0f32; out.len()];
        let fold_tiles = self.plan.attending().specialization.constant("FOLD_TILES").unwrap_or(0) as usize;
        let mut non_finite = false;
        let mut reference = MASKED;
        let mut part_sums = vec![0.0f32; parts as usize];
        for (number, tile_begin) in (1..).zip(tile.walk.places.clone().step_by(tile_kv as usize)) {
            let scores = row.scores(tile_begin..tile_begin + tile_kv);
            non_finite |= scores.iter().any(|score| score.is_nan());
            let tile_max = scores.iter().fold(MASKED, |max, &score| max.max(score));
            let moved = if tile_max > reference + SLACK { tile_max } else { reference };
            let factor = (reference - moved).exp2();
            reference = moved;
            part_sums.iter_mut().chain(out.iter_mut()).chain(&mut folded).for_each(|sum| *sum *= factor);

            let weight = |&score: &f32| if score > MASKED { (score - reference + SHIFT).exp2() } else { 0.0 };
            let weights: Vec<f32> = scores.iter().map(weight).collect();
            for (sum, weights) in part_sums.iter_mut().zip(weights.chunks_exact((tile_kv / parts) as usize)) {
                for four in weights.chunks_exact(4) {
                    *sum += four[0] + four[1] + four[2] + four[3];
                }
            }
            for (at, &weight) in (tile_begin..).zip(&weights) {
                // A masked key may hold NaN.
                if weight != 0.0 {
                    for (to, value) in out.iter_mut().zip(row.value(at)) {
                        *to = f16::from_f32(weight).to_f32().mul_add(value.to_f32(), *to);
                    }
                }
            }
            if fold_tiles > 0 && number % fold_tiles == 0 {
                for (sum, to) in out.iter_mut().zip(&mut folded) {
                    *to += core::mem::take(sum);
                }
            }
        }

        out.iter_mut().zip(&folded).for_each(|(sum, folded)| *sum += folded);
        let sum: f32 = part_sums.iter().sum();
        if non_finite || reference == f32::INFINITY {
            out.fill(f32::NAN);
            return f32::NAN;
        }
        if sum == 0.0 {
            out.fill(0.0);
            return LSE_EMPTY;
        }
        out.iter_mut().for_each(|x| *x = *x / sum * out_scale);
        (reference - SHIFT + sum.log2()) * core::f32::consts::LN_2
    }
}
