//! CPU twin of `search_tree.wgsl`.

use super::attend_rows::dot;
use super::sample_queries::{sample_queries, sampled_queries};
use crate::{
    Element, Error, GroupBounds, Hip, HostBlockLists, LSE_EMPTY, Mask, Representative, Result, SelectionInputs,
    SelectionMethod, SelectionPlan,
};

/// The score of a pair (sample, key) that the mask excludes.
pub(super) const MASKED: f32 = LSE_EMPTY;

/// CPU twin of the kernel `search_tree`, for a plan of HiP.
///
/// # Errors
/// The errors of [`SelectionInputs::validate`], and [`Error::Argument`] for a plan of another method.
pub fn search_tree<T: Element>(plan: &SelectionPlan, inputs: &SelectionInputs<'_, T>) -> Result<HostBlockLists> {
    let problem = plan.problem();
    let SelectionMethod::Hip(hip) = problem.method() else {
        return Err(Error::Argument { argument: "plan", rule: "must be a plan of HiP" });
    };
    let samples = sample_queries(plan, inputs)?;
    let shape = problem.shape();
    let mut lists = HostBlockLists::empty(problem.blocks().indices_shape(shape));
    let [batch_size, num_sets, num_q_blocks, num_groups] = lists.shape();
    for batch in 0..batch_size {
        let seq_len_kv = inputs.seq_len_kv(batch).min(shape.seq_len_kv);
        for set in 0..num_sets {
            for q_block in 0..num_q_blocks {
                let place = Place { batch, set, q_block, seq_len_kv };
                let search = Search { plan, hip, inputs, samples: &samples[0], place };
                let end = (q_block + 1).saturating_mul(hip.block_size_q).min(shape.seq_len_q);
                let p_max = i64::from(end) - 1 + i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
                if problem.is_dense(p_max) {
                    continue;
                }
                let num_blocks = problem.num_candidate_blocks(p_max, seq_len_kv);
                let firsts = if num_blocks <= num_groups {
                    (0..num_blocks).collect()
                } else {
                    search.run(num_blocks, num_groups)
                };
                let keys: Vec<u32> = firsts.into_iter().map(|first| hip.sink_size + first * hip.block_size_k).collect();
                lists.set_list(batch, set, q_block, &keys);
            }
        }
    }
    Ok(lists)
}

/// The batch, set and query block of a list.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) batch: u32,
    pub(super) set: u32,
    pub(super) q_block: u32,
    pub(super) seq_len_kv: u32,
}

struct Search<'a, T> {
    plan: &'a SelectionPlan,
    hip: &'a Hip,
    inputs: &'a SelectionInputs<'a, T>,
    samples: &'a [f32],
    place: Place,
}

impl<T: Element> Search<'_, T> {
    /// First blocks of the last round's groups, ascending.
    fn run(&self, num_blocks: u32, num_groups: u32) -> Vec<u32> {
        let power = 1 << num_blocks.ilog2();
        let alignment = match self.hip.group_bounds {
            GroupBounds::Even => 1,
            GroupBounds::Aligned => u32::div_ceil(power, num_groups),
        };
        let begin = |j: u32| {
            let even = (u64::from(num_blocks) * u64::from(j) / u64::from(num_groups)) as u32; // at most num_blocks
            if j == num_groups { even } else { even / alignment * alignment }
        };
        let mut groups: Vec<(u32, u32)> = (0..num_groups).map(|j| (begin(j), begin(j + 1) - begin(j))).collect();
        let mut size = num_blocks.div_ceil(num_groups) + alignment - 1;
        let mut round = 0;
        while size > 1 && round < self.plan.max_rounds() {
            let halves = groups.iter().flat_map(|&(first, size)| {
                let half = size / 2;
                [(first, half), (first + half, size - half)]
            });
            let halves: Vec<(u32, u32)> = halves.filter(|&(_, size)| size > 0).collect();
            let scores: Vec<f32> = halves.iter().map(|&half| self.score(half)).collect();
            groups = top_k(&scores, num_groups as usize).into_iter().map(|i| halves[i]).collect();
            size = size.div_ceil(2);
            round += 1;
        }
        groups.into_iter().map(|(first, _)| first).collect()
    }

    /// The best score of a half's representative block.
    fn score(&self, (first, size): (u32, u32)) -> f32 {
        let representative = match self.hip.representative {
            Representative::Center => first + size / 2,
            Representative::First => first,
            Representative::Last => first + size - 1,
        };
        let begin = self.hip.sink_size + representative * self.hip.block_size_k;
        let keys = (1..=self.hip.block_size_k / self.hip.stride_k).map(|i| begin + i * self.hip.stride_k - 1);
        keys.fold(MASKED, |best, key| best.max(self.score_key(key)))
    }

    fn score_key(&self, key: u32) -> f32 {
        let problem = self.plan.problem();
        let (shape, Place { batch, set, q_block, seq_len_kv }) = (problem.shape(), self.place);
        let (samples, dim) = (&self.plan.samples[0], shape.head_dim as usize);
        let heads = problem.granularity.heads_per_set(shape);
        let mut best = MASKED;
        for head in set * heads..(set + 1) * heads {
            let k_row = key.min(seq_len_kv - 1) as usize;
            let k = self.inputs.k.row(batch as usize, k_row, (head / shape.group_size()) as usize);
            let row = ((batch * shape.num_q_heads + head) * self.plan.num_q_blocks() + q_block) * samples.num_samples;
            for sample in 0..samples.num_samples {
                let query = sampled_queries(self.plan, samples, q_block, sample).start;
                let position = i64::from(query) + i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
                let last_scored = match problem.mask() {
                    Mask::Full => i64::from(seq_len_kv) - 1,
                    // `validate` rejects the other masks.
                    Mask::Causal | Mask::Window { .. } | Mask::CausalAt { .. } => {
                        position - i64::from(problem.candidate_window())
                    }
                };
                if i64::from(key) <= last_scored {
                    best = best.max(dot(&self.samples[(row + sample) as usize * dim..][..dim], k));
                }
            }
        }
        best
    }
}

/// Indices of the best scores, ascending; among equal scores the first ones.
pub(super) fn top_k(scores: &[f32], keep: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // A stable sort; -0 and 0 compare as equal.
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(core::cmp::Ordering::Equal));
    order.truncate(keep);
    order.sort_unstable();
    order
}
