//! CPU twin of `select_chunks.wgsl`.

use super::score_chunks::{Survivors, score_chunks};
use super::search_tree::top_k;
use crate::{Element, HostBlockLists, Result, SelectionInputs, SelectionPlan};

/// CPU twin of the kernel `select_chunks`: the survivors of a stage for each list of blocks, given the chunks and scores of the twin of
/// `score_chunks`.
#[must_use]
pub fn select_chunks(plan: &SelectionPlan, stage: usize, scored: &[Vec<(u32, f32)>]) -> Survivors {
    let shape = plan.problem().shape();
    let (lists_per_set, num_q_blocks) = (plan.lists_per_set() as usize, plan.num_q_blocks() as usize);
    let keep = plan.stages[stage].keep as usize;
    let num_sets = shape.batch_size as usize * plan.problem().granularity.num_sets(shape) as usize;
    let mut survivors = Vec::new();
    for set in 0..num_sets {
        for q_block in 0..num_q_blocks {
            let lists = (0..lists_per_set).map(|head| &scored[(set * lists_per_set + head) * num_q_blocks + q_block]);
            let scores = |list: &[(u32, f32)]| list.iter().map(|&(_, score)| score).collect::<Vec<f32>>();
            let mut kept: Vec<u32> = if plan.is_union() {
                let of_list =
                    |list: &Vec<(u32, f32)>| top_k(&scores(list), keep).into_iter().map(|i| list[i].0).collect();
                lists.flat_map::<Vec<u32>, _>(of_list).collect()
            } else {
                let best = lists
                    .map(|list| scores(list))
                    .reduce(|best, next| best.into_iter().zip(next).map(|(a, b)| a.max(b)).collect());
                let chunks = &scored[set * lists_per_set * num_q_blocks + q_block];
                top_k(&best.unwrap_or_default(), keep).into_iter().map(|i| chunks[i].0).collect()
            };
            kept.sort_unstable();
            kept.dedup();
            survivors.push(kept);
        }
    }
    survivors
}

/// All stages in the order of the kernels: the lists, and the survivors of each stage.
///
/// # Errors
/// The errors of [`score_chunks`].
pub fn select_stages<T: Element>(
    plan: &SelectionPlan,
    inputs: &SelectionInputs<'_, T>,
) -> Result<(HostBlockLists, Vec<Survivors>)> {
    inputs.validate(plan.problem())?;
    let (shape, blocks) = (plan.problem().shape(), plan.problem().blocks());
    let mut stages: Vec<Survivors> = Vec::new();
    for stage in 0..plan.problem().num_stages() {
        let scored = score_chunks(plan, inputs, stage, stages.last().unwrap_or(&Vec::new()))?;
        stages.push(select_chunks(plan, stage, &scored));
    }
    let mut lists = HostBlockLists::empty(blocks.indices_shape(shape));
    let [batch_size, num_sets, num_q_blocks, _] = lists.shape();
    let mut survivors = stages.last().into_iter().flatten();
    for batch in 0..batch_size {
        let seq_len_kv = inputs.seq_len_kv(batch).min(shape.seq_len_kv);
        for set in 0..num_sets {
            for q_block in 0..num_q_blocks {
                let Some(survivors) = survivors.next() else { continue };
                let begin = q_block * blocks.block_size_q;
                let position = |query: u32| i64::from(query) + i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
                let end = shape.seq_len_q.min(begin.saturating_add(blocks.block_size_q));
                if plan.problem().is_dense(position(end) - 1) {
                    continue;
                }
                let limit = position(begin) + i64::from(blocks.block_size_q);
                let reached = |&key: &u32| i64::from(key) < limit && key < seq_len_kv;
                let list: Vec<u32> = survivors.iter().copied().filter(reached).collect();
                lists.set_list(batch, set, q_block, &list);
            }
        }
    }
    Ok((lists, stages))
}
