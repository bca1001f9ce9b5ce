//! HiP: every round halves the groups of blocks and keeps the best halves.

use super::score::{HeadKeys, MASKED, Queries};
use super::top_k::TopK;
use super::{Call, ListId, QueryBlock};
use crate::{Element, GroupBounds, Hip, Mask, Representative};
use rayon::prelude::*;

/// A task with fewer keys is not worth its overhead.
const KEYS_PER_TASK: usize = 256;

/// A list for each set and query block.
pub(super) fn select<T: Element>(call: &Call<'_, T>, hip: &Hip) -> Vec<Vec<u32>> {
    let num_lists = call.num_lists();
    let threads = rayon::current_num_threads();
    // Scores do not depend on how keys are dealt to tasks.
    let tasks_per_list = if num_lists >= 2 * threads { 1 } else { threads };
    let list = |index| match call.query_block(call.list_id(index)) {
        None => vec![],
        Some(block) => Search::new(call, hip, call.list_id(index), &block, tasks_per_list).run(),
    };
    (0..num_lists).into_par_iter().with_max_len(1).map(list).collect()
}

/// A group of neighbouring blocks, counted from the end of the sinks.
#[derive(Clone, Copy, Debug)]
struct Group {
    start: u32,
    size: u32,
    /// Score of its representative, once computed.
    score: Option<f32>,
}

struct Search<'a, T> {
    hip: &'a Hip,
    num_blocks: u32,
    /// Sampled queries, `[query, head]`, for each KV head of the set.
    heads: Vec<(HeadKeys<'a, T>, Queries)>,
    /// Query heads of one KV head within the set.
    num_heads: usize,
    /// A sampled query sees keys up to its position - `behind`; `None`: all keys.
    behind: Option<i64>,
    /// Position of the first sampled query, and from one to the next.
    p_first: i64,
    p_step: i64,
    seq_len_kv: u32,
    tasks: usize,
}

impl<'a, T: Element> Search<'a, T> {
    fn new(call: &'a Call<'_, T>, hip: &'a Hip, id: ListId, block: &QueryBlock, tasks: usize) -> Self {
        let shape = call.problem.shape();
        let set = call.heads(id.set);
        let num_heads = set.len().min(shape.group_size() as usize);
        // The last query of each stride; in a block shorter than a stride, the last of all.
        let step = (hip.stride_q as usize).min(block.queries.len());
        let num_queries = block.queries.len() / step;
        let q_index = |sample: usize| block.queries.start + (sample + 1) * step - 1;
        let scale = call.problem.selection_scale();
        let prepare = |first_head: usize| {
            let queries = Queries::new(num_queries * num_heads, shape.head_dim as usize, |i, to| {
                call.read_query(id.batch, q_index(i / num_heads), first_head + i % num_heads, to);
                to.iter_mut().for_each(|x| *x *= scale);
            });
            (call.keys(id.batch, first_head), queries)
        };
        Self {
            hip,
            num_blocks: call.problem.num_candidate_blocks(block.p_max, block.seq_len_kv),
            heads: set.step_by(num_heads).map(prepare).collect(),
            num_heads,
            behind: match call.problem.mask() {
                Mask::Full => None,
                // `validate` rejects the other masks.
                Mask::Causal | Mask::Window { .. } | Mask::CausalAt { .. } => {
                    Some(call.problem.candidate_window().into())
                }
            },
            p_first: block.p_min + step as i64 - 1,
            p_step: step as i64,
            seq_len_kv: block.seq_len_kv,
            tasks,
        }
    }

    fn run(&self) -> Vec<u32> {
        let keep = self.hip.max_blocks();
        let first_key = |block: u32| self.hip.sink_size + block * self.hip.block_size_k;
        if self.num_blocks <= keep {
            return (0..self.num_blocks).map(first_key).collect();
        }
        let mut groups = first_groups(self.num_blocks, keep, self.hip.group_bounds);
        let mut top_k = TopK::default();
        while groups.iter().any(|group| group.size > 1) {
            let mut halves = self.halves(&groups);
            self.score(&mut halves);
            let scores: Vec<f32> = halves.iter().map(|half| half.score.unwrap_or(MASKED)).collect();
            groups.clear();
            groups.extend(top_k.indices(&scores, keep as usize).map(|index| halves[index]));
        }
        groups.iter().map(|group| first_key(group.start)).collect()
    }

    fn representative(&self, start: u32, size: u32) -> u32 {
        match self.hip.representative {
            Representative::Center => start + size / 2,
            Representative::First => start,
            Representative::Last => start + size - 1,
        }
    }

    /// Both halves of every group, without empty ones. A half that keeps the group's representative keeps its score too.
    fn halves(&self, groups: &[Group]) -> Vec<Group> {
        let mut halves = Vec::with_capacity(2 * groups.len());
        for group in groups {
            let representative = self.representative(group.start, group.size);
            let left = group.size / 2;
            for (start, size) in [(group.start, left), (group.start + left, group.size - left)] {
                if size > 0 {
                    let same = self.representative(start, size) == representative;
                    halves.push(Group { start, size, score: group.score.filter(|_| same) });
                }
            }
        }
        halves
    }

    /// Scores the halves that have no score yet: the largest over sampled queries, sampled keys of the representative, and heads.
    fn score(&self, halves: &mut [Group]) {
        let Hip { block_size_k, stride_k, sink_size, .. } = *self.hip;
        let keys_per_block = (block_size_k / stride_k) as usize;
        let mut keys = Vec::with_capacity(halves.len() * keys_per_block);
        for half in halves.iter().filter(|half| half.score.is_none()) {
            let start = sink_size + self.representative(half.start, half.size) * block_size_k;
            keys.extend((1..=block_size_k / stride_k).map(|i| start + i * stride_k - 1));
        }
        let mut scores = vec![MASKED; keys.len()];
        let score = |(keys, scores): (&[u32], &mut [f32])| {
            for (from, queries) in &self.heads {
                queries.raise_scores(*from, keys, |key| self.first_query(key, queries.len()), scores);
            }
        };
        let task = keys.len().div_ceil(self.tasks).max(KEYS_PER_TASK);
        if task >= keys.len() {
            score((&keys, &mut scores));
        } else {
            keys.par_chunks(task).zip(scores.par_chunks_mut(task)).for_each(score);
        }
        let unscored = halves.iter_mut().filter(|half| half.score.is_none());
        for (half, scores) in unscored.zip(scores.chunks_exact(keys_per_block)) {
            half.score = Some(scores.iter().copied().fold(MASKED, f32::max));
        }
    }

    /// The first of the sampled `[query, head]` pairs that sees a key; `num` when none does.
    fn first_query(&self, key: u32, num: usize) -> usize {
        match self.behind {
            None if key < self.seq_len_kv => 0,
            None => num,
            // The smallest query with key <= p - behind.
            Some(behind) => {
                let missing = i64::from(key) + behind - self.p_first;
                if missing <= 0 {
                    return 0;
                }
                let query = (missing + self.p_step - 1) / self.p_step;
                (query as usize).saturating_mul(self.num_heads).min(num)
            }
        }
    }
}

/// The groups of the first round; there are more blocks than groups.
fn first_groups(num_blocks: u32, num_groups: u32, bounds: GroupBounds) -> Vec<Group> {
    let unit = match bounds {
        GroupBounds::Even => 1,
        GroupBounds::Aligned => (1u64 << num_blocks.ilog2()).div_ceil(num_groups.into()),
    };
    // At most num_blocks, a u32.
    let bound = |j: u32| match j == num_groups {
        true => num_blocks,
        false => (u64::from(num_blocks) * u64::from(j) / u64::from(num_groups) / unit * unit) as u32,
    };
    let group = |j| Group { start: bound(j), size: bound(j + 1) - bound(j), score: None };
    (0..num_groups).map(group).filter(|group| group.size > 0).collect()
}
