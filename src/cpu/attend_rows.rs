//! What the twins of `attend_prefill` and `attend_decode` share, as their shaders share `attend_rows.wgsl`.

use core::ops::Range;

use crate::{AttentionPlan, Element, HostInputs, LSE_EMPTY, Tiling};

const MASKED: f32 = LSE_EMPTY;

/// The rows of one workgroup, and the keys that it walks through.
#[derive(Clone, Debug)]
pub(super) struct RowTile {
    pub(super) batch: u32,
    pub(super) kv_head: u32,
    /// Rows are (query, query head of the group) pairs.
    pub(super) rows: Range<u32>,
    pub(super) seq_len_kv: u32,
    /// The keys that any of the rows sees.
    pub(super) walked: Range<u32>,
    /// The keys that all of them see.
    pub(super) shared_by_all: Range<u32>,
}

/// Plan and inputs of one call.
#[derive(Clone, Copy)]
pub(super) struct Call<'a, T> {
    pub(super) plan: &'a AttentionPlan,
    pub(super) inputs: &'a HostInputs<'a, T>,
}

impl<T: Element> Call<'_, T> {
    pub(super) fn tiling(&self) -> Tiling {
        self.plan.tiling()
    }

    /// One tile for each workgroup of a dispatch without splits.
    pub(super) fn tiles(&self) -> impl Iterator<Item = RowTile> {
        let shape = *self.plan.problem().shape();
        let (num_rows, tile_q) = (shape.seq_len_q * shape.group_size(), self.tiling().tile_q());
        let visible = move |row: u32, seq_len_kv| {
            self.plan.problem().visible_keys().visible(row / shape.group_size(), shape.seq_len_q, seq_len_kv)
        };
        let heads = (0..shape.batch_size).flat_map(move |batch| (0..shape.num_kv_heads).map(move |head| (batch, head)));
        heads.flat_map(move |(batch, kv_head)| {
            let seq_len_kv = self.inputs.seq_len_kv(batch).min(shape.seq_len_kv);
            (0..num_rows).step_by(tile_q as usize).map(move |first_row| {
                let rows = first_row..num_rows.min(first_row + tile_q);
                let (first, last) = (visible(rows.start, seq_len_kv), visible(rows.end - 1, seq_len_kv));
                let (walked, shared_by_all) = (first.start..last.end, last.start..first.end);
                RowTile { batch, kv_head, rows, seq_len_kv, walked, shared_by_all }
            })
        })
    }

    /// `[query, query head]` of a row.
    pub(super) fn place(&self, tile: &RowTile, row: u32) -> [u32; 2] {
        let group_size = self.plan.problem().shape().group_size();
        [row / group_size, tile.kv_head * group_size + row % group_size]
    }

    /// One row against the keys that its tile walks through: writes `out` `[head_dim_v]` and returns the lse.
    pub(super) fn attend_row(&self, tile: &RowTile, row: u32, out: &mut [f32]) -> f32 {
        let problem = self.plan.problem();
        let Tiling { lanes, keys, .. } = self.tiling();
        let [q_index, head] = self.place(tile, row);
        let visible = problem.visible_keys().visible(q_index, problem.shape().seq_len_q, tile.seq_len_kv);
        let q = self.inputs.q.row(tile.batch as usize, q_index as usize, head as usize);
        let k = |key: u32| self.inputs.k.row(tile.batch as usize, key as usize, tile.kv_head as usize);
        let v = |key: u32| self.inputs.v.row(tile.batch as usize, key as usize, tile.kv_head as usize);

        out.fill(0.0);
        let mut row_max = MASKED;
        let mut lane_sums = vec![0.0f32; lanes as usize];
        for tile_begin in tile.walked.clone().step_by((lanes * keys) as usize) {
            let tile_keys = tile_begin..tile_begin + lanes * keys;
            let whole = tile_begin >= tile.shared_by_all.start && tile_keys.end <= tile.shared_by_all.end;
            let score = |key: u32| {
                let sees = whole || (key < tile.walked.end && visible.contains(&key));
                if sees { dot(q, k(key)) * problem.scale_log2() } else { MASKED }
            };
            let scores: Vec<f32> = tile_keys.clone().map(score).collect();

            let new_max = scores.iter().fold(row_max, |max, &score| max.max(score));
            let rescale = (row_max - new_max).exp2();
            row_max = new_max;
            let weight = |&score: &f32| if score == MASKED { 0.0 } else { (score - new_max).exp2() };
            let weights: Vec<f32> = scores.iter().map(weight).collect();
            for (sum, weights) in lane_sums.iter_mut().zip(weights.chunks_exact(keys as usize)) {
                *sum *= rescale;
                for four in weights.chunks_exact(4) {
                    *sum += four[0] + four[1] + four[2] + four[3];
                }
            }
            out.iter_mut().for_each(|x| *x *= rescale);
            // Of four keys the kernel adds the last first where no mask is in the way.
            for (key4, four) in (tile_begin..).step_by(4).zip(weights.chunks_exact(4)) {
                for i in 0..4 {
                    let i = if whole { 3 - i } else { i };
                    // A masked key may hold NaN.
                    if whole || four[i] != 0.0 {
                        for (to, from) in out.iter_mut().zip(v(key4 + i as u32)) {
                            *to = four[i].mul_add(from.to_f32(), *to);
                        }
                    }
                }
            }
        }

        let sum: f32 = lane_sums.iter().sum();
        if sum == 0.0 {
            out.fill(0.0);
            return LSE_EMPTY;
        }
        out.iter_mut().for_each(|x| *x /= sum);
        (row_max + sum.log2()) * core::f32::consts::LN_2
    }
}

/// Four elements at a time, the last of the four first.
fn dot<T: Element>(q: &[T], k: &[T]) -> f32 {
    let mut score = 0.0f32;
    for (q4, k4) in q.chunks_exact(4).zip(k.chunks_exact(4)) {
        for i in (0..4).rev() {
            score = q4[i].to_f32().mul_add(k4[i].to_f32(), score);
        }
    }
    score
}
