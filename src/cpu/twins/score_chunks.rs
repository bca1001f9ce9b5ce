//! CPU twin of `score_chunks.wgsl`.

use super::attend_rows::dot;
use super::sample_queries::sample_queries;
use super::search_tree::MASKED;
use crate::plan::StagePlan;
use crate::{Element, Error, InfiniteHip, Representative, Result, SelectionInputs, SelectionMethod, SelectionPlan};

/// Surviving chunks of a stage: first keys, ascending, for each list of blocks.
pub type Survivors = Vec<Vec<u32>>;

/// CPU twin of the kernel `score_chunks`: the chunks of a stage with their scores, for each list of scores,
/// `[batch, num_sets, num_q_blocks]` or, where heads keep chunks of their own, `[batch, num_q_heads, num_q_blocks]`.
/// `parents` are the survivors of the stage before, unused for stage 0. Where the stage keeps all chunks of a list, they all get the
/// least score.
///
/// # Errors
/// The errors of [`SelectionInputs::validate`], and [`Error::Argument`] for a plan of another method.
pub fn score_chunks<T: Element>(
    plan: &SelectionPlan,
    inputs: &SelectionInputs<'_, T>,
    stage: usize,
    parents: &Survivors,
) -> Result<Vec<Vec<(u32, f32)>>> {
    let problem = plan.problem();
    let SelectionMethod::InfiniteHip(method) = problem.method() else {
        return Err(Error::Argument { argument: "plan", rule: "must be a plan of InfiniteHiP" });
    };
    let samples = sample_queries(plan, inputs)?;
    let shape = problem.shape();
    let planned = plan.stages[stage];
    let lists_per_set = plan.lists_per_set();
    let num_sets = problem.granularity.num_sets(shape);
    let heads = problem.granularity.heads_per_set(shape) / lists_per_set;
    let mut scored = Vec::new();
    for batch in 0..shape.batch_size {
        let seq_len_kv = inputs.seq_len_kv(batch).min(shape.seq_len_kv);
        for set in 0..num_sets * lists_per_set {
            for q_block in 0..plan.num_q_blocks() {
                let first_query = i64::from(q_block * method.block_size_q);
                let p_min = first_query + i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
                let list = (batch * num_sets + set / lists_per_set) * plan.num_q_blocks() + q_block;
                let descent = Descent {
                    plan,
                    method,
                    inputs,
                    planned,
                    samples: &samples[planned.samples],
                    batch,
                    q_block,
                    p_min,
                };
                let mut list_scores = Vec::new();
                let chunks = chunks(plan, stage, seq_len_kv, parents.get(list as usize));
                let keeps_all = chunks.len() <= planned.keep as usize;
                for begin in chunks {
                    let mut end = begin + planned.chunk_size;
                    if stage == 0 {
                        end = end.min(seq_len_kv - problem.candidate_window());
                    }
                    let is_active = i64::from(begin) <= (p_min - i64::from(problem.candidate_window())).max(0);
                    let score = if is_active && !keeps_all {
                        (set * heads..(set + 1) * heads)
                            .fold(MASKED, |best, head| best.max(descent.score(head, [begin, end])))
                    } else {
                        MASKED
                    };
                    list_scores.push((begin, score));
                }
                scored.push(list_scores);
            }
        }
    }
    Ok(scored)
}

/// First keys of the chunks of a stage.
fn chunks(plan: &SelectionPlan, stage: usize, seq_len_kv: u32, parents: Option<&Vec<u32>>) -> Vec<u32> {
    let planned = plan.stages[stage];
    if stage == 0 {
        let sink_size = plan.problem().blocks().sink_size;
        return (0..plan.problem().num_chunks(seq_len_kv)).map(|j| sink_size + j * planned.chunk_size).collect();
    }
    let children = |&parent: &u32| (0..planned.children).map(move |j| parent + j * planned.chunk_size);
    parents.into_iter().flatten().flat_map(children).collect()
}

struct Descent<'a, T> {
    plan: &'a SelectionPlan,
    method: &'a InfiniteHip,
    inputs: &'a SelectionInputs<'a, T>,
    planned: StagePlan,
    samples: &'a [f32],
    batch: u32,
    q_block: u32,
    p_min: i64,
}

impl<T: Element> Descent<'_, T> {
    fn score(&self, head: u32, [mut left, mut right]: [u32; 2]) -> f32 {
        let by_center = self.method.representative == Representative::Center;
        let rounds = self.planned.chunk_size.next_power_of_two().ilog2().max(1);
        let mut best = MASKED;
        for _ in 0..rounds {
            let middle = (left + right) / 2;
            let probes = if by_center { [(left + middle) / 2, (middle + right) / 2] } else { [left, middle] };
            let [left_score, right_score] = probes.map(|key| self.score_key(head, key));
            // A tie goes to the right half.
            let winner = if left_score > right_score {
                right = middle;
                left_score
            } else {
                left = middle;
                right_score
            };
            best = if by_center { best.max(winner) } else { winner };
        }
        best
    }

    fn score_key(&self, head: u32, key: u32) -> f32 {
        let shape = self.plan.problem().shape();
        let key = i64::from(key).min(self.p_min.max(0)) as usize;
        let k = self.inputs.k.row(self.batch as usize, key, (head / shape.group_size()) as usize);
        let num_samples = self.plan.samples[self.planned.samples].num_samples;
        let row = ((self.batch * shape.num_q_heads + head) * self.plan.num_q_blocks() + self.q_block) * num_samples;
        let dim = shape.head_dim as usize;
        (row..row + num_samples)
            .fold(MASKED, |best, sample| best.max(dot(&self.samples[sample as usize * dim..][..dim], k)))
    }
}
