//! The common part of the twins of `attend_prefill` and `attend_decode`, as their shaders share the family `rows`.

use core::ops::Range;

use super::find_exponents::Scaled;
use super::modify::modified;
use super::walk::{TileClass, Walk};
use crate::{AttentionPlan, AttentionProblem, Element, HostInputs, LSE_EMPTY, Result, Sharing, Tiling};

/// The score of a key that a row does not see.
pub(super) const MASKED: f32 = LSE_EMPTY;

/// The rows of one workgroup, and the keys that it walks through.
#[derive(Clone, Debug)]
pub(super) struct RowTile {
    pub(super) batch: u32,
    /// A KV head's query heads, or one query head that selects keys of its own.
    pub(super) heads: Range<u32>,
    /// Rows are (query, query head of the set) pairs.
    pub(super) rows: Range<u32>,
    pub(super) walk: Walk,
}

/// Plan and inputs of one call.
#[derive(Clone, Copy)]
pub(super) struct Call<'a, T> {
    pub(super) plan: &'a AttentionPlan,
    pub(super) inputs: &'a HostInputs<'a, T>,
    /// The powers of two that `inputs` were scaled by.
    pub(super) scaled: Option<&'a Scaled>,
}

impl<'a, T: Element> Call<'a, T> {
    pub(super) fn new(plan: &'a AttentionPlan, inputs: &'a HostInputs<'a, T>) -> Result<Self> {
        inputs.validate(plan.problem())?;
        Ok(Self { plan, inputs, scaled: None })
    }

    pub(super) fn tiling(&self) -> Tiling {
        self.plan.tiling()
    }

    /// One tile for each workgroup of a dispatch without splits.
    pub(super) fn tiles(&self) -> Vec<RowTile> {
        let shape = *self.plan.problem().shape();
        let sets = self.plan.row_sets();
        let (group, block_size_q) = (sets.heads_per_set, sets.block_size_q);
        let tile_q = self.tiling().tile_q() as usize;
        let mut tiles = Vec::new();
        for batch in 0..shape.batch_size {
            let seq_len_kv = self.inputs.seq_len_kv(batch).min(shape.seq_len_kv);
            for first_head in (0..shape.num_q_heads).step_by(group as usize) {
                for block_begin in (0..shape.seq_len_q).step_by(block_size_q as usize) {
                    let block_end = shape.seq_len_q.min(block_begin + block_size_q);
                    for first_row in (block_begin * group..block_end * group).step_by(tile_q) {
                        let rows = first_row..(block_end * group).min(first_row + tile_q as u32);
                        let queries = rows.start / group..(rows.end - 1) / group + 1;
                        let of = [batch, first_head, seq_len_kv];
                        let walk = Walk::new(self.plan, self.inputs.blocks, of, &queries, block_end);
                        tiles.push(RowTile { batch, heads: first_head..first_head + group, rows, walk });
                    }
                }
            }
        }
        tiles
    }

    /// `[query, query head]` of a row.
    pub(super) fn place(&self, tile: &RowTile, row: u32) -> [u32; 2] {
        let group = tile.heads.len() as u32;
        [row / group, tile.heads.start + row % group]
    }

    /// One row of a tile, with the keys and values of its KV head.
    pub(super) fn row<'t>(&'t self, tile: &'t RowTile, row: u32) -> Row<'t, 'a, T> {
        let [q_index, head] = self.place(tile, row);
        let problem = self.plan.problem();
        let kv_head = (head / problem.shape().group_size()) as usize;
        let q = self.inputs.q.row(tile.batch as usize, q_index as usize, head as usize);
        let scale = problem.kernel_scale();
        let scale = self.scaled.map_or(scale, |scaled| scaled.score_scale(tile.batch, head, scale));
        Row { problem, inputs: self.inputs, tile, place: [q_index, head], kv_head, q, scale }
    }

    /// One row against the walk of its tile: writes `out` `[head_dim_v]` and returns the lse.
    pub(super) fn attend_row(&self, tile: &RowTile, row: u32, out: &mut [f32]) -> f32 {
        match (self.plan.tier().matrix(), self.tiling().sharing) {
            (true, _) => self.attend_row_matrix(tile, row, out),
            (false, Sharing::Keys | Sharing::Rows | Sharing::Tiles) => self.attend_row_scalar(tile, row, out),
            (false, Sharing::Columns) => self.attend_row_columns(tile, row, out),
        }
    }

    /// The twin of `rows/keys.wgsl` and `rows/staged.wgsl`.
    fn attend_row_scalar(&self, tile: &RowTile, row: u32, out: &mut [f32]) -> f32 {
        let Tiling { lanes, keys, sharing, .. } = self.tiling();
        let row = self.row(tile, row);

        out.fill(0.0);
        let mut non_finite = false;
        let mut row_max = MASKED;
        let mut lane_sums = vec![0.0f32; lanes as usize];
        for tile_begin in tile.walk.places.clone().step_by((lanes * keys) as usize) {
            // A kernel also goes through tiles that no row sees, which changes nothing.
            let whole = match tile.walk.class(tile_begin, lanes * keys) {
                TileClass::Empty => continue,
                TileClass::Partial => false,
                TileClass::Full => true,
            };
            let scores = row.scores(tile_begin..tile_begin + lanes * keys);

            non_finite |= scores.iter().any(|score| score.is_nan());
            let new_max = scores.iter().fold(row_max, |max, &score| max.max(score));
            let rescale = (row_max - new_max).exp2();
            row_max = new_max;
            let weight =
                |&score: &f32| if score > MASKED { (score - new_max).exp2().max(f32::MIN_POSITIVE) } else { 0.0 };
            let weights: Vec<f32> = scores.iter().map(weight).collect();
            lane_sums.iter_mut().for_each(|sum| *sum *= rescale);
            for (at, four) in weights.chunks_exact(4).enumerate() {
                // Where tiles are shared, a lane has four consecutive keys out of every 4 * lanes, otherwise consecutive keys only.
                let lane = if sharing == Sharing::Tiles { at % lanes as usize } else { at / (keys as usize / 4) };
                lane_sums[lane] += four[0] + four[1] + four[2] + four[3];
            }
            out.iter_mut().for_each(|x| *x *= rescale);
            // Of four keys the kernel adds the last one first if no mask applies.
            for (at4, four) in (tile_begin..).step_by(4).zip(weights.chunks_exact(4)) {
                for i in 0..4 {
                    let i = if whole { 3 - i } else { i };
                    // A masked key may hold NaN.
                    if whole || four[i] != 0.0 {
                        for (to, from) in out.iter_mut().zip(row.value(at4 + i as u32)) {
                            *to = four[i].mul_add(from.to_f32(), *to);
                        }
                    }
                }
            }
        }

        let sum: f32 = lane_sums.iter().sum();
        if non_finite || row_max == f32::INFINITY {
            out.fill(f32::NAN);
            return f32::NAN;
        }
        if sum == 0.0 {
            out.fill(0.0);
            return LSE_EMPTY;
        }
        out.iter_mut().for_each(|x| *x /= sum);
        (row_max + sum.log2()) * core::f32::consts::LN_2
    }
}

/// A row of queries with the keys and values at the places of its tile's walk.
pub(super) struct Row<'t, 'a, T> {
    problem: &'t AttentionProblem,
    inputs: &'a HostInputs<'a, T>,
    tile: &'t RowTile,
    /// `[query, query head]`.
    place: [u32; 2],
    kv_head: usize,
    q: &'a [T],
    scale: f32,
}

impl<T: Element> Row<'_, '_, T> {
    /// Scores in base 2; [`MASKED`] where the row sees no key.
    pub(super) fn scores(&self, places: Range<u32>) -> Vec<f32> {
        let walk = &self.tile.walk;
        let key = |at: u32| self.inputs.k.row(self.tile.batch as usize, walk.key(at) as usize, self.kv_head);
        let sees = |at: u32| walk.sees(at, self.place[0]);
        let score = |at: u32| {
            let [q_index, head] = self.place;
            let score = dot(self.q, key(at)) * self.scale;
            modified(self.problem, self.inputs, score, [self.tile.batch, head, q_index, walk.key(at)])
        };
        places.map(|at| if sees(at) { score(at) } else { MASKED }).collect()
    }

    /// The value at a place, `[head_dim_v]`.
    pub(super) fn value(&self, at: u32) -> &[T] {
        self.inputs.v.row(self.tile.batch as usize, self.tile.walk.key(at) as usize, self.kv_head)
    }
}

/// Four elements at a time, the last of the four first.
pub(super) fn dot<Q: Element, T: Element>(q: &[Q], k: &[T]) -> f32 {
    let mut score = 0.0f32;
    for (q4, k4) in q.chunks_exact(4).zip(k.chunks_exact(4)) {
        for i in (0..4).rev() {
            score = q4[i].to_f32().mul_add(k4[i].to_f32(), score);
        }
    }
    score
}
