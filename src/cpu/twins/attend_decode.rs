//! CPU twin of `attend_decode.wgsl`.

use super::attend_rows::{Call, RowTile};
use super::find_exponents::Scaled;
use crate::{AttentionPlan, Element, HostInputs, LSE_EMPTY, Result};

/// The partial results that `attend_decode` leaves for `merge_splits`.
#[derive(Clone, Debug, PartialEq)]
pub struct Partials {
    /// `[num_splits, batch, seq_len_q, num_q_heads, head_dim_v]`.
    pub out: Vec<f32>,
    /// `[num_splits, batch, seq_len_q, num_q_heads]`, natural log; [`LSE_EMPTY`] in splits whose keys a row does not see.
    pub lse: Vec<f32>,
}

/// CPU twin of the kernel `attend_decode`: each split of the keys by itself.
///
/// # Errors
/// The errors of [`HostInputs::validate`].
pub fn attend_decode<T: Element>(plan: &AttentionPlan, inputs: &HostInputs<'_, T>) -> Result<Partials> {
    let call = Call::new(plan, inputs)?;
    let Some(scaled) = Scaled::new(plan, inputs)? else { return Ok(attend(&call)) };
    Ok(attend(&Call { plan, inputs: &scaled.inputs(inputs), scaled: Some(&scaled) }))
}

fn attend<T: Element>(call: &Call<'_, T>) -> Partials {
    let shape = call.plan.problem().shape();
    let (num_splits, tile_kv) = (call.tiling().num_splits, call.tiling().tile_kv());
    let dim = shape.head_dim_v as usize;
    let out_rows = shape.batch_size * shape.seq_len_q * shape.num_q_heads;
    let mut out = vec![0.0; (num_splits * out_rows) as usize * dim];
    let mut lse = vec![LSE_EMPTY; (num_splits * out_rows) as usize];
    for tile in call.tiles() {
        // Splits are whole tiles, as even as they can be: a split may be empty.
        let places = tile.walk.places.clone();
        let num_tiles = (places.end - places.start).div_ceil(tile_kv);
        for split in 0..num_splits {
            let border = |split: u32| places.start + num_tiles * split / num_splits * tile_kv;
            let walk = tile.walk.part(border(split)..border(split + 1).min(places.end));
            let split_tile = RowTile { walk, ..tile.clone() };
            for row in tile.rows.clone() {
                let [q_index, head] = call.place(&tile, row);
                let out_row = (tile.batch * shape.seq_len_q + q_index) * shape.num_q_heads + head;
                let at = (split * out_rows + out_row) as usize;
                lse[at] = call.attend_row(&split_tile, row, &mut out[at * dim..][..dim]);
            }
        }
    }
    Partials { out, lse }
}
