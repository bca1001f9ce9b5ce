//! InfiniteHiP: every stage descends into each of its chunks and keeps the best ones.

use super::score::{HeadKeys, MASKED, Queries};
use super::top_k::TopK;
use super::{Call, ListId, QueryBlock};
use crate::{Element, HeadReduction, InfiniteHip, Representative, Stage};
use rayon::prelude::*;

/// Chunks that descend together: their probes are independent, so that the processor waits for many loads at once.
const CHUNKS_PER_TASK: usize = 64;

/// Number of query blocks whose queries are averaged together: neighbours probe nearly the same keys.
const BLOCKS_PER_WAVE: usize = 16;

/// Writes the lists, and to `survivors` `[list][stage]` the chunks that every stage but the last kept. Stages before `first_stage` are read from
/// there.
pub(super) fn select<T: Element>(
    call: &Call<'_, T>,
    method: &InfiniteHip,
    first_stage: usize,
    survivors: &mut [Vec<Vec<u32>>],
) -> Vec<Vec<u32>> {
    let num_q_blocks = call.blocks.num_q_blocks(call.problem.shape()) as usize;
    let waves = survivors.par_chunks_mut(num_q_blocks.max(1)).enumerate().flat_map(|(sequence_set, survivors)| {
        let first = sequence_set * num_q_blocks;
        survivors.par_chunks_mut(BLOCKS_PER_WAVE).enumerate().map(move |(wave, survivors)| {
            let lists = survivors
                .iter_mut()
                .enumerate()
                .map(|(i, survivors)| List::new(call, first + wave * BLOCKS_PER_WAVE + i, first_stage, survivors))
                .collect();
            run_wave(call, method, lists)
        })
    });
    waves.flatten_iter().collect()
}

/// One list on its way through the stages.
struct List<'a> {
    id: ListId,
    /// `None`: nothing is selected.
    block: Option<QueryBlock>,
    survivors: &'a mut Vec<Vec<u32>>,
    /// The first stage to run.
    first_stage: usize,
    /// Chunks of the present stage: first keys, ascending.
    chunks: Vec<u32>,
}

impl<'a> List<'a> {
    fn new<T: Element>(call: &Call<'_, T>, index: usize, first_stage: usize, survivors: &'a mut Vec<Vec<u32>>) -> Self {
        let id = call.list_id(index);
        let block = call.query_block(id);
        // A list that was dense until now has no survivors yet: it runs through every stage.
        let first_stage = if survivors.is_empty() { 0 } else { first_stage };
        let chunks = first_stage.checked_sub(1).map_or(vec![], |before| survivors[before].clone());
        Self { id, block, survivors, first_stage, chunks }
    }
}

fn run_wave<T: Element>(call: &Call<'_, T>, method: &InfiniteHip, mut lists: Vec<List<'_>>) -> Vec<Vec<u32>> {
    let first_stage = lists.iter().map(|list| list.first_stage).min().unwrap_or(0);
    for (index, stage) in method.stages.iter().enumerate().skip(first_stage) {
        for list in lists.iter_mut().filter(|list| list.first_stage <= index) {
            let Some(block) = &list.block else { continue };
            list.chunks = match index.checked_sub(1) {
                None => {
                    let num_chunks = call.problem.num_chunks(block.seq_len_kv);
                    (0..num_chunks).map(|j| method.sink_size + j * stage.chunk_size).collect()
                }
                Some(before) => {
                    let ratio = method.stages[before].chunk_size / stage.chunk_size;
                    let children = |&chunk: &u32| (0..ratio).map(move |s| chunk + s * stage.chunk_size);
                    list.chunks.iter().flat_map(children).collect()
                }
            };
        }
        let scores = score_stage(call, method, index, &lists);
        let running = lists.par_iter_mut().zip(scores).filter(|(list, _)| list.first_stage <= index);
        running.for_each(|(list, scores)| {
            keep_best(list, stage, &scores);
            if index + 1 < method.stages.len() {
                list.survivors.truncate(index);
                list.survivors.push(list.chunks.clone());
            }
        });
    }
    let finish = |list: List<'_>| {
        let Some(block) = list.block else {
            list.survivors.clear();
            return vec![];
        };
        // Sinks and chunks are multiples of the last stage's chunk size, so first keys are aligned already.
        let end = (block.p_min + i64::from(method.block_size_q)).min(block.seq_len_kv.into());
        list.chunks.into_iter().filter(|&start| i64::from(start) < end).collect()
    };
    lists.into_iter().map(finish).collect()
}

/// Whether a stage keeps all chunks of a list, so that their scores are not needed.
fn keeps_all(list: &List<'_>, stage: &Stage) -> bool {
    list.chunks.len() <= stage.kept_chunks() as usize
}

/// Keeps the best chunks by each set of scores, and returns the union.
fn keep_best(list: &mut List<'_>, stage: &Stage, scores: &[Vec<f32>]) {
    if keeps_all(list, stage) {
        return;
    }
    let keep = stage.kept_chunks() as usize;
    let mut kept = vec![false; list.chunks.len()];
    let mut top_k = TopK::default();
    for scores in scores {
        top_k.indices(scores, keep).for_each(|index| kept[index] = true);
    }
    let mut kept = kept.into_iter();
    list.chunks.retain(|_| kept.next().unwrap_or(false));
}

/// Scores of every list's chunks, `[list][one, or one for each head][chunk]`.
fn score_stage<T: Element>(
    call: &Call<'_, T>,
    method: &InfiniteHip,
    index: usize,
    lists: &[List<'_>],
) -> Vec<Vec<Vec<f32>>> {
    let averaged: Vec<Vec<_>> = lists.par_iter().map(|list| average_queries(call, method, index, list)).collect();
    let scored = lists.iter().zip(&averaged).filter(|(_, averaged)| !averaged.is_empty());
    let longest = scored.map(|(list, _)| list.chunks.len()).max().unwrap_or(0);
    // Tile by tile, so that the keys probed by the last block of a wave are still in the cache for the next.
    let tasks: Vec<_> = (0..longest)
        .step_by(CHUNKS_PER_TASK)
        .flat_map(|start| lists.iter().zip(&averaged).map(move |(list, queries)| (start, list, queries)))
        .collect();
    let run = |&(start, list, averaged): &(usize, &List<'_>, &Vec<_>)| {
        let end = list.chunks.len().min(start + CHUNKS_PER_TASK);
        match &list.block {
            Some(block) if start < end && !averaged.is_empty() => {
                let descent = Descent::new(call, method, index, block, &list.chunks[start..end]);
                descent.run(averaged, method.reduction)
            }
            _ => vec![],
        }
    };
    let parts: Vec<Vec<Vec<f32>>> = tasks.par_iter().with_max_len(1).map(run).collect();

    let num_scores = |list: &List<'_>| match method.reduction {
        HeadReduction::Max => 1,
        HeadReduction::Union => call.heads(list.id.set).len(),
    };
    let mut scores: Vec<Vec<Vec<f32>>> =
        lists.iter().map(|list| vec![Vec::with_capacity(list.chunks.len()); num_scores(list)]).collect();
    for (part, at) in parts.into_iter().zip((0..lists.len()).cycle()) {
        scores[at].iter_mut().zip(part).for_each(|(scores, part)| scores.extend(part));
    }
    scores
}

/// Means of neighbouring queries of the block, times the scale, for each head of the set.
fn average_queries<'a, T: Element>(
    call: &'a Call<'_, T>,
    method: &InfiniteHip,
    index: usize,
    list: &List<'_>,
) -> Vec<(HeadKeys<'a, T>, Queries)> {
    let Some(block) = &list.block else { return vec![] };
    if list.first_stage > index || keeps_all(list, &method.stages[index]) {
        return vec![];
    }
    let dim = call.problem.shape().head_dim as usize;
    let stride = method.stages[index].stride_q as usize;
    let scale = call.problem.selection_scale();
    let mut query = vec![0.0; dim];
    let mut average = |head: usize| {
        Queries::new(block.queries.len().div_ceil(stride), dim, |group, to| {
            let start = block.queries.start + group * stride;
            let queries = start..block.queries.end.min(start + stride);
            let count = queries.len() as f32;
            to.fill(0.0);
            for q_index in queries {
                call.read_query(list.id.batch, q_index, head, &mut query);
                to.iter_mut().zip(&query).for_each(|(to, x)| *to += x);
            }
            to.iter_mut().for_each(|x| *x = *x / count * scale);
        })
    };
    call.heads(list.id.set).map(|head| (call.keys(list.id.batch, head), average(head))).collect()
}

/// The descent of some chunks down to single keys.
struct Descent<'a> {
    representative: Representative,
    rounds: u32,
    /// Chunks that begin after this are not halved.
    last_active: i64,
    /// The last key that may be probed.
    last_probe: u32,
    /// First keys of the chunks, and their ends.
    chunks: &'a [u32],
    ends: Vec<u32>,
}

impl<'a> Descent<'a> {
    fn new<T: Element>(
        call: &Call<'_, T>,
        method: &InfiniteHip,
        index: usize,
        block: &QueryBlock,
        chunks: &'a [u32],
    ) -> Self {
        let chunk_size = method.stages[index].chunk_size;
        let window: i64 = call.problem.candidate_window().into();
        // Only the first stage's last chunk is cut; later stages split whole chunks.
        let limit = match index {
            0 => (i64::from(block.seq_len_kv) - window).max(0) as u32, // at most seq_len_kv, a u32
            _ => u32::MAX,
        };
        Self {
            representative: method.representative,
            rounds: chunk_size.next_power_of_two().ilog2().max(1),
            last_active: (block.p_min - window).max(0),
            last_probe: block.p_min.max(0) as u32, // a position fits 30 bits
            chunks,
            ends: chunks.iter().map(|&start| (start + chunk_size).min(limit)).collect(),
        }
    }

    /// Scores of the chunks: the largest over the heads, or one for each head.
    fn run<T: Element>(&self, heads: &[(HeadKeys<'_, T>, Queries)], reduction: HeadReduction) -> Vec<Vec<f32>> {
        // Ascending: active chunks come first.
        let num_active = self.chunks.partition_point(|&start| i64::from(start) <= self.last_active);
        let score = |(keys, queries): &(HeadKeys<'_, T>, Queries)| {
            let mut scores = self.descend(num_active, *keys, queries);
            scores.resize(self.chunks.len(), MASKED);
            scores
        };
        match reduction {
            HeadReduction::Union => heads.iter().map(score).collect(),
            HeadReduction::Max => {
                let largest = |mut best: Vec<f32>, scores: Vec<f32>| {
                    best.iter_mut().zip(scores).for_each(|(best, score)| *best = best.max(score));
                    best
                };
                heads.iter().map(score).reduce(largest).into_iter().collect()
            }
        }
    }

    /// A probe that already stood for its span in the last round has a score: in the last round that is one of the two; where the first
    /// key stands for a span, one of the two in every round but the first.
    fn descend<T: Element>(&self, num_active: usize, keys: HeadKeys<'_, T>, queries: &Queries) -> Vec<f32> {
        let whole = |(&left, &right): (&u32, &u32)| Span { left, right, probed: None };
        let mut spans: Vec<Span> = self.chunks.iter().zip(&self.ends).take(num_active).map(whole).collect();
        let mut best = vec![MASKED; num_active];
        let mut probes = Vec::with_capacity(2 * num_active);
        let mut scores = Vec::with_capacity(2 * num_active);
        for _ in 0..self.rounds {
            probes.clear();
            for span in &spans {
                probes.extend(self.probes(span).into_iter().filter(|&key| span.score_of(key).is_none()));
            }
            scores.clear();
            scores.resize(probes.len(), MASKED);
            queries.raise_scores(keys, &probes, |_| 0, &mut scores);
            let mut scores = scores.iter().copied();
            for (span, best) in spans.iter_mut().zip(&mut best) {
                let [left, right] = self.probes(span);
                // A probe without a known score was scored above.
                let mut score = |key| span.score_of(key).or_else(|| scores.next()).unwrap_or(MASKED);
                let [of_left, of_right] = [score(left), score(right)];
                let middle = span.middle();
                // Ties go to the right half.
                let goes_left = of_left > of_right;
                let winner = if goes_left { of_left } else { of_right };
                *span = if goes_left {
                    Span { left: span.left, right: middle, probed: Some((left, winner)) }
                } else {
                    Span { left: middle, right: span.right, probed: Some((right, winner)) }
                };
                *best = match self.representative {
                    Representative::First => winner,
                    Representative::Center | Representative::Last => best.max(winner),
                };
            }
        }
        best
    }

    /// The keys that stand for both halves of a span.
    #[inline]
    fn probes(&self, span: &Span) -> [u32; 2] {
        let (left, middle, right) = (span.left, span.middle(), span.right);
        let [of_left, of_right] = match self.representative {
            Representative::First => [left, middle],
            Representative::Center | Representative::Last => {
                [left + (middle - left) / 2, middle + (right - middle) / 2]
            }
        };
        [of_left.min(self.last_probe), of_right.min(self.last_probe)]
    }
}

/// The part of a chunk that is left.
#[derive(Clone, Copy)]
struct Span {
    left: u32,
    right: u32,
    /// The last key that stood for it, and its score.
    probed: Option<(u32, f32)>,
}

impl Span {
    #[inline]
    fn middle(&self) -> u32 {
        self.left + (self.right - self.left) / 2
    }

    #[inline]
    fn score_of(&self, key: u32) -> Option<f32> {
        match self.probed {
            Some((probed, score)) if probed == key => Some(score),
            _ => None,
        }
    }
}
