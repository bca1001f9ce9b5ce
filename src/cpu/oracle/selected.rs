//! Block-sparse attention by its definition, in f64.

use crate::{
    AttentionOutput, AttentionProblem, Element, Error, Granularity, HostBlocks, HostInputs, HostTensor, LSE_EMPTY,
    Mask, Result,
};

/// The keys that a row attends to, ascending, each once: the three rules of [`BlockSelection`](crate::BlockSelection),
/// key by key. None where the problem has no lists.
///
/// # Panics
/// When an index is out of range, or the lists are not those of the problem.
#[must_use]
pub fn attended_keys(
    problem: &AttentionProblem,
    seq_len_kv: u32,
    blocks: &HostBlocks,
    batch: u32,
    q_index: u32,
    q_head: u32,
) -> Vec<u32> {
    let Some(selection) = problem.blocks else { return Vec::new() };
    let shape = problem.shape();
    let set = match selection.granularity {
        Granularity::QueryHead => q_head,
        Granularity::KvHead => q_head / (shape.num_q_heads / shape.num_kv_heads),
        Granularity::Layer => 0,
    };
    let q_block = q_index / selection.block_size_q;
    let starts = blocks.list(batch, set, q_block);

    let position = |query: u32| i64::from(query) + i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
    let last_query = shape.seq_len_q.min((q_block + 1) * selection.block_size_q) - 1;
    let dense = selection.dense_below > 0 && position(last_query) < selection.dense_below.into();
    let attends = |key: u32| {
        let distance = position(q_index) - i64::from(key);
        // Lists ascend and blocks do not overlap, so that only the last one that begins at or before the key can hold it.
        let before = starts.partition_point(|&start| start <= key);
        let listed = before > 0 && key - starts[before - 1] < selection.block_size;
        if problem.mask == Mask::Full {
            return dense || listed;
        }
        let window = distance < selection.window_size.into();
        let sink = key < selection.sink_size;
        distance >= 0 && (dense || window || sink || listed)
    };
    (0..seq_len_kv).filter(|&key| attends(key)).collect()
}

/// One row of [`attend_selected`]: `(out, lse)` in f64. For checking samples of a large problem.
///
/// # Panics
/// When an index is out of range, or inputs or lists were not validated.
#[must_use]
pub fn attend_selected_row<T: Element>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    blocks: &HostBlocks,
    batch: u32,
    q_index: u32,
    q_head: u32,
) -> (Vec<f64>, f64) {
    let shape = problem.shape();
    let kv_head = (q_head / (shape.num_q_heads / shape.num_kv_heads)) as usize;
    let q = inputs.q.row(batch as usize, q_index as usize, q_head as usize);
    let scale = f64::from(problem.scale());
    let scores: Vec<(u32, f64)> = attended_keys(problem, inputs.seq_len_kv(batch), blocks, batch, q_index, q_head)
        .into_iter()
        .map(|key| {
            let k = inputs.k.row(batch as usize, key as usize, kv_head);
            (key, scale * q.iter().zip(k).map(|(q, k)| f64::from(q.to_f32()) * f64::from(k.to_f32())).sum::<f64>())
        })
        // A weight of exactly 0: the key counts as one that the row does not see.
        .filter(|&(_, score)| score != f64::NEG_INFINITY)
        .collect();
    let mut out = vec![0.0; shape.head_dim_v as usize];
    if scores.is_empty() {
        return (out, f64::from(LSE_EMPTY));
    }
    let max =
        scores.iter().fold(f64::NEG_INFINITY, |max, &(_, score)| if score.is_nan() { score } else { max.max(score) });
    let sum: f64 = scores.iter().map(|&(_, score)| (score - max).exp()).sum();
    for (key, score) in scores {
        let weight = (score - max).exp() / sum;
        let v = inputs.v.row(batch as usize, key as usize, kv_head);
        out.iter_mut().zip(v).for_each(|(out, v)| *out += weight * f64::from(v.to_f32()));
    }
    (out, max + sum.ln())
}

/// Block-sparse attention by its definition, every sum in f64.
///
/// # Errors
/// Those of [`HostInputs::validate`] and [`HostBlocks::validate`]; [`Error::Argument`] where the problem takes no lists.
pub fn attend_selected<T: Element>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    blocks: &HostBlocks,
) -> Result<AttentionOutput> {
    inputs.validate(problem)?;
    let shape = problem.shape();
    let Some(selection) = &problem.blocks else {
        return Err(Error::Argument { argument: "blocks", rule: "the problem must take lists of selected blocks" });
    };
    blocks.validate(selection, shape, inputs.seq_lens_kv)?;
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    for batch in 0..shape.batch_size {
        for q_index in 0..shape.seq_len_q {
            for q_head in 0..shape.num_q_heads {
                let (row, row_lse) = attend_selected_row(problem, inputs, blocks, batch, q_index, q_head);
                out.extend(row.into_iter().map(|x| x as f32));
                lse.push(row_lse as f32);
            }
        }
    }
    Ok(AttentionOutput { out: HostTensor::new(shape.out(), out)?, lse: HostTensor::new(shape.lse(), lse)? })
}
