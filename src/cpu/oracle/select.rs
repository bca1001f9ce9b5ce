//! Selection by its definition: every dot product in f64, every rule derived from the fields of the problem.
//!
//! Only queries are prepared as on the fast paths, rounded to f32: `q * scale` for HiP, and `mean(q) * scale` for InfiniteHiP. All
//! candidates are scored with the same query, so decisions can differ only where dot products do.

use core::cmp::Ordering;
use core::ops::Range;

use crate::problem::{HeadReduction, Representative};
use crate::{
    Element, Error, Granularity, GroupBounds, Hip, HostBlockLists, InfiniteHip, Mask, Result, SelectionInputs,
    SelectionMethod, SelectionProblem, parallel,
};

/// The score of a candidate whose sampled keys no query may see: below every other score.
const MASKED: f64 = -3.0e38;

/// The intermediate results behind one list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// HiP: the groups `(first block, blocks)` that each round begins with, and last the remaining ones. Empty where all candidates fit
    /// into the list.
    pub rounds: Vec<Vec<(u32, u32)>>,
    /// InfiniteHiP: the first keys of the chunks that survive each stage, ascending.
    pub survivors: Vec<Vec<u32>>,
}

/// Selection by its definition.
///
/// # Errors
/// The errors of [`SelectionInputs::validate`].
pub fn select<T: Element>(problem: &SelectionProblem, inputs: &SelectionInputs<'_, T>) -> Result<HostBlockLists> {
    Ok(select_traced(problem, inputs)?.0)
}

/// [`select`], with the trace of each list, `[batch, set, q_block]`. Lists are independent and run in parallel.
///
/// # Errors
/// The errors of [`select`].
pub fn select_traced<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
) -> Result<(HostBlockLists, Vec<Trace>)> {
    select_from(problem, inputs, 0, &[])
}

/// [`select_traced`] from a stage of InfiniteHiP on, with the chunks of the stages before from `earlier`, the traces of an earlier
/// step. They are ignored where `first_stage` is 0, and by HiP. A list without a trace of that stage, because it was dense then, is
/// computed from its first stage on.
///
/// # Errors
/// The errors of [`select`]; [`Error::Length`] where a later stage is given another number of `earlier` traces than there are lists.
pub fn select_from<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
    first_stage: usize,
    earlier: &[Trace],
) -> Result<(HostBlockLists, Vec<Trace>)> {
    inputs.validate(problem)?;
    let shape = problem.shape();
    let heads = match problem.granularity {
        Granularity::QueryHead => 1,
        Granularity::KvHead => shape.num_q_heads / shape.num_kv_heads,
        Granularity::Layer => shape.num_q_heads,
    };
    let (block_size_q, max_blocks) = match &problem.method {
        SelectionMethod::Hip(hip) => (hip.block_size_q, hip.top_k / hip.block_size_k),
        SelectionMethod::InfiniteHip(method) => {
            let kept = method.stages.last().map_or(0, |stage| stage.keep / stage.chunk_size);
            let lists = if method.reduction == HeadReduction::Union { heads } else { 1 };
            (method.block_size_q, kept * lists)
        }
        SelectionMethod::Other(_) => return Ok((super::operators::select(problem, inputs)?, Vec::new())),
    };
    let [batch_size, num_sets, num_q_blocks] =
        [shape.batch_size, shape.num_q_heads / heads, shape.seq_len_q.div_ceil(block_size_q)];
    // Sequences without queries have no lists, whatever their number.
    let all: Vec<[u32; 3]> = (0..if num_q_blocks == 0 { 0 } else { batch_size })
        .flat_map(|b| (0..num_sets).flat_map(move |s| (0..num_q_blocks).map(move |m| [b, s, m])))
        .collect();
    if first_stage > 0 && earlier.len() != all.len() {
        let (expected, actual) = (all.len() as u64, earlier.len() as u64);
        return Err(Error::Length { tensor: "earlier", expected, actual });
    }
    let found: Vec<(Vec<u32>, Trace)> = parallel::map(&all, |index, &[batch, set, q_block]| {
        let first = q_block * block_size_q;
        List {
            problem,
            inputs,
            batch: batch as usize,
            heads: set * heads..(set + 1) * heads,
            queries: first..shape.seq_len_q.min(first + block_size_q),
            seq_len_kv: inputs.seq_lens_kv.map_or(shape.seq_len_kv, |lens| lens[batch as usize]).into(),
        }
        .select(earlier.get(index).and_then(|trace| trace.survivors.get(..first_stage)).unwrap_or_default())
    });
    let mut blocks = HostBlockLists::empty([batch_size, num_sets, num_q_blocks, max_blocks]);
    for ([batch, set, q_block], (list, _)) in all.into_iter().zip(&found) {
        blocks.set_list(batch, set, q_block, list);
    }
    Ok((blocks, found.into_iter().map(|(_, trace)| trace).collect()))
}

/// The queries and heads that share a list.
struct List<'a, T> {
    problem: &'a SelectionProblem,
    inputs: &'a SelectionInputs<'a, T>,
    batch: usize,
    heads: Range<u32>,
    queries: Range<u32>,
    seq_len_kv: i64,
}

impl<T: Element> List<'_, T> {
    /// `earlier`: the surviving chunks of stages that are not computed again.
    fn select(&self, earlier: &[Vec<u32>]) -> (Vec<u32>, Trace) {
        if self.last_position() < self.problem.dense_below.into() && self.problem.dense_below > 0 {
            return Default::default();
        }
        match &self.problem.method {
            SelectionMethod::Hip(hip) => self.hip(hip),
            SelectionMethod::InfiniteHip(method) => self.infinite_hip(method, earlier),
            SelectionMethod::Other(_) => Default::default(), // computed by its operators
        }
    }

    /// Negative where a sequence has fewer keys than queries.
    fn position(&self, query: u32) -> i64 {
        i64::from(query) + self.seq_len_kv - i64::from(self.problem.shape.seq_len_q)
    }

    fn last_position(&self) -> i64 {
        self.position(self.queries.end - 1)
    }

    fn dot(&self, q: &[f32], q_head: u32, key: i64) -> f64 {
        let kv_head = q_head / (self.problem.shape.num_q_heads / self.problem.shape.num_kv_heads);
        let k = self.inputs.k.row(self.batch, key as usize, kv_head as usize);
        q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(k.to_f32())).sum()
    }

    /// HiP, specification 1.3.
    fn hip(&self, hip: &Hip) -> (Vec<u32>, Trace) {
        let [sinks, block_size] = [hip.sink_size, hip.block_size_k].map(i64::from);
        let near = self.candidate_window(hip.window_size, hip.refresh_interval.saturating_sub(1));
        let end = match self.problem.mask {
            Mask::Full => self.seq_len_kv,
            // `validate` rejects the other masks.
            Mask::Causal | Mask::Window { .. } | Mask::CausalAt { .. } => self.last_position() + 1 - near,
        };
        let num_keys = (end - sinks).max(0);
        let num_blocks = (num_keys + block_size - 1) / block_size;
        let start = |block: i64| (sinks + block * block_size) as u32;
        let mut trace = Trace::default();
        if num_keys <= hip.top_k.into() {
            return ((0..num_blocks).map(start).collect(), trace);
        }

        let keep = i64::from(hip.top_k) / block_size;
        let bounds = bounds(num_blocks, keep, hip.group_bounds);
        let mut groups: Vec<(i64, i64)> =
            bounds.windows(2).map(|pair| (pair[0], pair[1] - pair[0])).filter(|&(_, size)| size > 0).collect();
        let queries = self.sampled_queries(hip.stride_q);
        loop {
            trace.rounds.push(groups.iter().map(|&(first, size)| (first as u32, size as u32)).collect());
            if groups.iter().all(|&(_, size)| size <= 1) {
                break;
            }
            let mut candidates = Vec::new();
            for (first, size) in groups {
                let half = size / 2;
                if half > 0 {
                    candidates.push((first, half));
                }
                candidates.push((first + half, size - half));
            }
            let scored = candidates.into_iter().map(|(first, size)| {
                let leaf = match hip.representative {
                    Representative::Center => first + size / 2,
                    Representative::First => first,
                    Representative::Last => first + size - 1,
                };
                (self.leaf_score(hip, near, &queries, leaf), (first, size))
            });
            groups = best(scored.collect(), keep);
        }
        (groups.into_iter().map(|(first, _)| start(first)).collect(), trace)
    }

    /// `W'`: a query's candidates begin at this distance.
    fn candidate_window(&self, window: u32, default_margin: u32) -> i64 {
        (i64::from(window) - i64::from(self.problem.margin.unwrap_or(default_margin))).max(0)
    }

    /// `(query, head, scaled query)`: the last query of every stride, or of the block where it is shorter than one.
    fn sampled_queries(&self, stride: u32) -> Vec<(u32, u32, Vec<f32>)> {
        let scale = self.problem.selection_scale();
        let mut sampled: Vec<u32> =
            self.queries.clone().filter(|query| (query - self.queries.start) % stride == stride - 1).collect();
        if sampled.is_empty() {
            sampled.push(self.queries.end - 1);
        }
        let mut rows = Vec::new();
        for query in sampled {
            for head in self.heads.clone() {
                let q = self.inputs.q.row(self.batch, query as usize, head as usize);
                rows.push((query, head, q.iter().map(|x| x.to_f32() * scale).collect()));
            }
        }
        rows
    }

    fn leaf_score(&self, hip: &Hip, near: i64, queries: &[(u32, u32, Vec<f32>)], leaf: i64) -> f64 {
        let mut score = MASKED;
        for offset in (0..hip.block_size_k).filter(|offset| offset % hip.stride_k == hip.stride_k - 1) {
            let key = i64::from(hip.sink_size) + leaf * i64::from(hip.block_size_k) + i64::from(offset);
            for (query, head, q) in queries {
                let allowed = self.problem.mask == Mask::Full || key <= self.position(*query) - near;
                if allowed && key < self.seq_len_kv {
                    score = score.max(self.dot(q, *head, key));
                }
            }
        }
        score
    }

    /// InfiniteHiP, specification 3.2 to 3.6.
    fn infinite_hip(&self, method: &InfiniteHip, earlier: &[Vec<u32>]) -> (Vec<u32>, Trace) {
        let [sinks, window] = [method.sink_size, method.window_size].map(i64::from);
        let seq_len_q = self.problem.shape.seq_len_q;
        let first_size = method.stages.first().map_or(1, |stage| stage.chunk_size);
        // Steps that use the result of the first stage. Only single queries (decoding) use lists of an earlier step.
        let steps = match (seq_len_q, method.stages.first()) {
            (1, Some(stage)) => stage.refresh_interval,
            _ => 1,
        };
        let margin = first_size.max(method.block_size_q.min(seq_len_q) - 1 + steps);
        let near = self.candidate_window(method.window_size, margin);
        let nearest = (window - i64::from(steps - 1)).max(0);
        let first = self.position(self.queries.start);
        let last_active = (first - near).max(0);
        let chunk_size = i64::from(first_size);
        let num_chunks = ((self.seq_len_kv - sinks - nearest).max(0) + chunk_size - 1) / chunk_size;
        let mut chunks: Vec<(i64, i64)> = (0..num_chunks)
            .map(|chunk| sinks + chunk * chunk_size)
            .map(|left| (left, (left + chunk_size).min(self.seq_len_kv - near)))
            .collect();

        let mut trace = Trace { survivors: earlier.to_vec(), ..Trace::default() };
        let mut parent_size = chunk_size;
        for (stage, survivors) in method.stages.iter().zip(earlier) {
            parent_size = stage.chunk_size.into();
            chunks = survivors.iter().map(|&left| (left.into(), i64::from(left) + parent_size)).collect();
        }
        for (index, stage) in method.stages.iter().enumerate().skip(earlier.len()) {
            let chunk_size = i64::from(stage.chunk_size);
            if index > 0 {
                chunks = chunks
                    .iter()
                    .flat_map(|&(left, _)| (0..parent_size / chunk_size).map(move |child| left + child * chunk_size))
                    .map(|left| (left, left + chunk_size))
                    .collect();
            }
            parent_size = chunk_size;
            let keep = i64::from(stage.keep) / chunk_size;
            let rounds = (1..).find(|rounds| 1i64 << rounds >= chunk_size).unwrap_or(1);
            let by_head: Vec<Vec<f64>> = self
                .heads
                .clone()
                .map(|head| {
                    let queries = self.averaged_queries(head, stage.stride_q);
                    let score = |key: i64| {
                        // A probe never goes past the first query of the block.
                        let key = key.clamp(0, first.max(0));
                        queries.iter().map(|q| self.dot(q, head, key)).fold(MASKED, f64::max)
                    };
                    let descend = |&(left, right): &(i64, i64)| {
                        if left > last_active {
                            return MASKED;
                        }
                        descend(method.representative, rounds, left, right, score)
                    };
                    chunks.iter().map(descend).collect()
                })
                .collect();
            chunks = match method.reduction {
                HeadReduction::Max => {
                    let largest = |j: usize| by_head.iter().map(|scores| scores[j]).fold(MASKED, f64::max);
                    best(chunks.iter().enumerate().map(|(j, &chunk)| (largest(j), chunk)).collect(), keep)
                }
                HeadReduction::Union => {
                    let kept = by_head
                        .iter()
                        .flat_map(|scores| best(scores.iter().copied().zip(chunks.iter().copied()).collect(), keep));
                    let mut kept: Vec<(i64, i64)> = kept.collect();
                    kept.sort_unstable();
                    kept.dedup();
                    kept
                }
            };
            trace.survivors.push(chunks.iter().map(|&(left, _)| left as u32).collect());
        }

        let mut starts: Vec<i64> = chunks.iter().map(|&(left, _)| left / parent_size * parent_size).collect();
        starts.dedup();
        starts.retain(|&start| start < first + i64::from(method.block_size_q) && start < self.seq_len_kv);
        (starts.into_iter().map(|start| start as u32).collect(), trace)
    }

    /// Means of `stride` neighbouring queries of the block, scaled.
    fn averaged_queries(&self, head: u32, stride: u32) -> Vec<Vec<f32>> {
        let scale = self.problem.selection_scale();
        let mut averaged = Vec::new();
        for first in self.queries.clone().step_by(stride as usize) {
            let group = first..self.queries.end.min(first + stride);
            let count = group.len() as f32;
            let mut sum = vec![0.0f32; self.problem.shape.head_dim as usize];
            for query in group {
                let q = self.inputs.q.row(self.batch, query as usize, head as usize);
                sum.iter_mut().zip(q).for_each(|(sum, x)| *sum += x.to_f32());
            }
            averaged.push(sum.into_iter().map(|sum| sum / count * scale).collect());
        }
        averaged
    }
}

/// The borders of HiP's first groups, specification 1.3 and 1.4. The last one stays at the end.
fn bounds(num_blocks: i64, num_groups: i64, bounds: GroupBounds) -> Vec<i64> {
    let step = match bounds {
        GroupBounds::Even => 1,
        GroupBounds::Aligned => {
            let power = 1i64 << num_blocks.ilog2();
            (power + num_groups - 1) / num_groups
        }
    };
    (0..=num_groups)
        .map(|j| if j == num_groups { num_blocks } else { num_blocks * j / num_groups / step * step })
        .collect()
}

/// The score of one chunk, specification 3.3.
fn descend(
    representative: Representative,
    rounds: u32,
    mut left: i64,
    mut right: i64,
    score: impl Fn(i64) -> f64,
) -> f64 {
    let (mut largest, mut last) = (MASKED, MASKED);
    for _ in 0..rounds {
        let center = (left + right) / 2;
        let [left_probe, right_probe] = match representative {
            Representative::First => [left, center],
            Representative::Center | Representative::Last => [(left + center) / 2, (center + right) / 2],
        };
        let [left_score, right_score] = [left_probe, right_probe].map(&score);
        if left_score > right_score {
            right = center;
            last = left_score;
        } else {
            left = center;
            last = right_score;
        }
        largest = largest.max(last);
    }
    if representative == Representative::First { last } else { largest }
}

/// The `keep` best candidates by score, the lower position first among equals; in the order of positions.
fn best(mut scored: Vec<(f64, (i64, i64))>, keep: i64) -> Vec<(i64, i64)> {
    scored.sort_by(|(a, at), (b, bt)| b.partial_cmp(a).unwrap_or(Ordering::Equal).then(at.cmp(bt)));
    let mut kept: Vec<(i64, i64)> = scored.into_iter().take(keep as usize).map(|(_, candidate)| candidate).collect();
    kept.sort_unstable();
    kept
}
