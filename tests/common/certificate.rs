//! The certificate for selection on floats (specification 6.6, 2): f32 may decide differently from f64 only where scores are closer than
//! rounding allows.
//!
//! The selection is replayed in f64 with an interval for every score, as wide as any order of f32 summation can make it.
//! A candidate is then kept *certainly*, *possibly* or not at all, whatever came of the near ties before it. A list must
//! hold every certain block and no impossible one; where the two sets agree, it is determined.

use rayon::prelude::*;
use wattn::{
    Element, GroupBounds, HeadReduction, Hip, HostBlockLists, InfiniteHip, Mask, Representative, SelectionInputs,
    SelectionMethod, SelectionProblem,
};

use super::UNIT;
use super::select::{SelectCase, Selector};

/// The distance of an implementation's scores from exact ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rounding {
    /// None: sums of small integers.
    Exact,
    /// `(head_dim + 8) u * sum |q| |k|`: a sum of `head_dim` products in any order, and a scaled mean of queries that is
    /// off by a few units (a GPU divides to 2.5 ulp).
    F32,
}

/// The lists that a replay allows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowed {
    /// Blocks that must be listed, ascending.
    pub certain: Vec<u32>,
    /// Blocks that may be listed, ascending, with all certain ones among them.
    pub possible: Vec<u32>,
}

/// Numbers of lists: checked, and left open by near ties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Certified {
    pub lists: usize,
    pub ties: usize,
}

/// Asserts that `blocks` are a selection that f32 arithmetic can give.
pub fn certify<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
    blocks: &HostBlockLists,
    what: &str,
) -> Certified {
    let allowed = replay(problem, inputs, Rounding::F32);
    let mut certified = Certified { lists: allowed.len(), ties: 0 };
    for ([b, s, m], Allowed { certain, possible }) in indices(problem).into_iter().zip(allowed) {
        let list = blocks.list(b, s, m);
        let missing = certain.iter().find(|start| list.binary_search(start).is_err());
        assert!(missing.is_none(), "{what} [{b}, {s}, {m}]: {missing:?} is certain, the list is {list:?}");
        let wrong = list.iter().find(|start| possible.binary_search(start).is_err());
        assert!(wrong.is_none(), "{what} [{b}, {s}, {m}]: {wrong:?} is impossible, the list is {list:?}");
        certified.ties += usize::from(certain != possible);
    }
    certified
}

/// Certifies a selector on cases, prints the number of near ties, and asserts that they leave less than half of the
/// lists open, or the certificate would say little.
pub fn certify_all<T: Element>(select: Selector<'_, T>, cases: &[SelectCase<T>], what: &str) -> Certified {
    let mut all = Certified::default();
    for case in cases {
        let blocks = select(&case.problem, &case.inputs()).unwrap();
        let one = certify(&case.problem, &case.inputs(), &blocks, &format!("{what} {}", case.name));
        all = Certified { lists: all.lists + one.lists, ties: all.ties + one.ties };
    }
    println!("{what}: near ties leave {} of {} lists open", all.ties, all.lists);
    assert!(all.lists > 0 && 2 * all.ties < all.lists, "{what}: near ties leave most lists open: {all:?}");
    all
}

/// `[batch, set, q_block]` of every list.
pub fn indices(problem: &SelectionProblem) -> Vec<[u32; 3]> {
    let [batches, sets, q_blocks, _] = problem.blocks().indices_shape(problem.shape());
    (0..batches).flat_map(|b| (0..sets).flat_map(move |s| (0..q_blocks).map(move |m| [b, s, m]))).collect()
}

/// The bounds of every list.
pub fn replay<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
    rounding: Rounding,
) -> Vec<Allowed> {
    indices(problem).par_iter().map(|&index| Replay::new(problem, inputs, rounding, index).run()).collect()
}

/// The lowest and the highest value that a computed score may have.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Score {
    low: f64,
    high: f64,
}

const MASKED: Score = Score { low: -3.0e38, high: -3.0e38 };

impl Score {
    fn max(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.max(other.high) }
    }

    fn hull(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

/// A group of blocks, or a chunk: `(first, end)`.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    at: (i64, i64),
    score: Score,
    /// Whether it is a candidate whatever near ties decide.
    certain: bool,
}

impl Candidate {
    /// Whether every implementation ranks this one before the other.
    fn leads(&self, other: &Self) -> bool {
        let equal = self.score == other.score && self.score.low == self.score.high;
        self.score.low > other.score.high || (equal && self.at < other.at)
    }
}

/// The candidates that may be among the `keep` best.
fn best(candidates: &[Candidate], keep: usize) -> Vec<Candidate> {
    let kept = candidates.iter().filter_map(|one| {
        let others = || candidates.iter().filter(|other| other.at != one.at);
        let surely_before = others().filter(|other| other.certain && other.leads(one)).count();
        let maybe_before = others().filter(|other| !one.leads(other)).count();
        (surely_before < keep).then_some(Candidate { certain: one.certain && maybe_before < keep, ..*one })
    });
    kept.collect()
}

struct Replay<'a, T> {
    problem: &'a SelectionProblem,
    inputs: &'a SelectionInputs<'a, T>,
    rounding: Rounding,
    batch: usize,
    heads: core::ops::Range<u32>,
    queries: Vec<u32>,
    len: i64,
    /// Distance from the query at which candidates begin.
    near: i64,
}

impl<'a, T: Element> Replay<'a, T> {
    fn new(
        problem: &'a SelectionProblem,
        inputs: &'a SelectionInputs<'a, T>,
        rounding: Rounding,
        [batch, set, q_block]: [u32; 3],
    ) -> Self {
        let (shape, blocks) = (problem.shape(), problem.blocks());
        let heads_per_set = blocks.granularity.heads_per_set(shape);
        Self {
            problem,
            inputs,
            rounding,
            batch: batch as usize,
            heads: set * heads_per_set..(set + 1) * heads_per_set,
            queries: (0..shape.seq_len_q).filter(|query| query / blocks.block_size_q == q_block).collect(),
            len: inputs.seq_len_kv(batch).into(),
            near: (i64::from(blocks.window_size) - i64::from(problem.margin())).max(0),
        }
    }

    fn run(&self) -> Allowed {
        let last = self.position(self.queries[self.queries.len() - 1]);
        let dense_below = self.problem.blocks().dense_below;
        if dense_below > 0 && last < dense_below.into() {
            return Allowed::default();
        }
        let kept = match self.problem.method() {
            SelectionMethod::Hip(hip) => self.hip(hip, last),
            SelectionMethod::InfiniteHip(method) => self.infinite_hip(method),
            method => panic!("no replay of {method:?}"),
        };
        let starts = |kept: &mut dyn Iterator<Item = &Candidate>| kept.map(|one| one.at.0 as u32).collect();
        Allowed { certain: starts(&mut kept.iter().filter(|one| one.certain)), possible: starts(&mut kept.iter()) }
    }

    fn position(&self, query: u32) -> i64 {
        i64::from(query) + self.len - i64::from(self.problem.shape().seq_len_q)
    }

    fn score(&self, q: &[f32], head: u32, key: i64) -> Score {
        let kv_head = head / self.problem.shape().group_size();
        let k = self.inputs.k().row(self.batch, key as usize, kv_head as usize);
        let (mut dot, mut abs) = (0.0f64, 0.0f64);
        for (q, k) in q.iter().zip(k) {
            let product = f64::from(*q) * f64::from(k.to_f32());
            dot += product;
            abs += product.abs();
        }
        let error = match self.rounding {
            Rounding::Exact => 0.0,
            Rounding::F32 => (q.len() as f64 + 8.0) * UNIT * abs,
        };
        Score { low: dot - error, high: dot + error }
    }

    fn scaled(&self, query: u32, head: u32) -> Vec<f32> {
        let q = self.inputs.q().row(self.batch, query as usize, head as usize);
        q.iter().map(|x| x.to_f32() * self.problem.selection_scale()).collect()
    }

    fn hip(&self, hip: &Hip, last: i64) -> Vec<Candidate> {
        let [sinks, block_size] = [hip.sink_size, hip.block_size_k].map(i64::from);
        let end = if self.problem.mask() == Mask::Full { self.len } else { last + 1 - self.near };
        let num_blocks = (sinks..end).step_by(block_size as usize).count() as i64;
        let keep = i64::from(hip.top_k / hip.block_size_k);
        let mut queries: Vec<(u32, u32, Vec<f32>)> = Vec::new();
        for head in self.heads.clone() {
            let stride = hip.stride_q as usize;
            let sampled = self.queries.chunks_exact(stride).map(|group| group[stride - 1]);
            let sampled = sampled.chain((self.queries.len() < stride).then(|| self.queries[self.queries.len() - 1]));
            queries.extend(sampled.map(|query| (query, head, self.scaled(query, head))));
        }
        let leaf = |block: i64| {
            let mut score = MASKED;
            for sample in 1..=i64::from(hip.block_size_k / hip.stride_k) {
                let key = sinks + block * block_size + sample * i64::from(hip.stride_k) - 1;
                for (query, head, q) in &queries {
                    let full = self.problem.mask() == Mask::Full;
                    if key < self.len && (full || self.position(*query) - key >= self.near) {
                        score = score.max(self.score(q, *head, key));
                    }
                }
            }
            score
        };
        let bound = |j: i64| match hip.group_bounds {
            GroupBounds::Aligned if j < keep => {
                let even = num_blocks * j / keep;
                even - even % (2i64.pow((num_blocks as f64).log2() as u32) as f64 / keep as f64).ceil() as i64
            }
            _ => num_blocks * j / keep,
        };
        let group = |at| Candidate { at, score: MASKED, certain: true };
        let mut groups: Vec<Candidate> = if num_blocks <= keep {
            (0..num_blocks).map(|block| group((block, block + 1))).collect()
        } else {
            (0..keep).map(|j| group((bound(j), bound(j + 1)))).filter(|one| one.at.0 < one.at.1).collect()
        };
        while groups.iter().any(|one| one.at.1 - one.at.0 > 1) {
            let mut halves = Vec::new();
            for Candidate { at: (from, to), certain, .. } in groups {
                let middle = from + (to - from) / 2;
                for (from, to) in [(from, middle), (middle, to)].into_iter().filter(|(from, to)| from < to) {
                    let score = leaf(match hip.representative {
                        Representative::First => from,
                        Representative::Last => to - 1,
                        _ => from + (to - from) / 2,
                    });
                    halves.push(Candidate { at: (from, to), score, certain });
                }
            }
            groups = best(&halves, keep as usize);
        }
        groups.iter_mut().for_each(|one| one.at.0 = sinks + one.at.0 * block_size);
        groups
    }

    fn infinite_hip(&self, method: &InfiniteHip) -> Vec<Candidate> {
        let first = self.position(self.queries[0]);
        let mut size = i64::from(method.stages[0].chunk_size);
        let leaving = if self.problem.shape().seq_len_q == 1 { method.stages[0].refresh_interval - 1 } else { 0 };
        let end = self.len - i64::from(method.window_size.saturating_sub(leaving));
        let chunk = |at| Candidate { at, score: MASKED, certain: true };
        let mut chunks: Vec<Candidate> = (method.sink_size.into()..end)
            .step_by(size as usize)
            .map(|left| chunk((left, (left + size).min(self.len - self.near))))
            .collect();
        for (index, stage) in method.stages.iter().enumerate() {
            let children = i64::from(stage.chunk_size);
            if index > 0 {
                let cut = |&one: &Candidate| {
                    let lefts = (one.at.0..one.at.0 + size).step_by(children as usize);
                    lefts.map(move |left| Candidate { at: (left, left + children), ..one })
                };
                chunks = chunks.iter().flat_map(cut).collect();
            }
            size = children;
            let keep = (stage.keep / stage.chunk_size) as usize;
            let scored = |head: u32| -> Vec<Candidate> {
                let queries = self.averaged(head, stage.stride_q as usize);
                let scores = chunks.iter().map(|one| {
                    let inactive = one.at.0 > (first - self.near).max(0);
                    let descent = Descent { replay: self, method, head, queries: &queries, last: first.max(0) };
                    let score = if inactive { MASKED } else { descent.go(one.at, size, MASKED) };
                    Candidate { score, ..*one }
                });
                scores.collect()
            };
            let by_head: Vec<Vec<Candidate>> = self.heads.clone().map(scored).collect();
            chunks = match method.reduction {
                HeadReduction::Max => {
                    let mut all = by_head[0].clone();
                    for other in &by_head[1..] {
                        all.iter_mut().zip(other).for_each(|(to, from)| to.score = to.score.max(from.score));
                    }
                    best(&all, keep)
                }
                reduction => {
                    assert_eq!(reduction, HeadReduction::Union);
                    let mut union: Vec<Candidate> = by_head.iter().flat_map(|scored| best(scored, keep)).collect();
                    union.sort_by_key(|one| (one.at, !one.certain));
                    union.dedup_by_key(|one| one.at);
                    union
                }
            };
        }
        chunks.retain(|one| one.at.0 < first + i64::from(method.block_size_q) && one.at.0 < self.len);
        chunks
    }

    fn averaged(&self, head: u32, stride: usize) -> Vec<Vec<f32>> {
        let mean = |queries: &[u32]| {
            let mut mean = vec![0.0f32; self.problem.shape().head_dim as usize];
            for &query in queries {
                let q = self.inputs.q().row(self.batch, query as usize, head as usize);
                mean.iter_mut().zip(q).for_each(|(mean, x)| *mean += x.to_f32());
            }
            mean.iter().map(|x| x / queries.len() as f32 * self.problem.selection_scale()).collect()
        };
        self.queries.chunks(stride).map(mean).collect()
    }
}

struct Descent<'a, T> {
    replay: &'a Replay<'a, T>,
    method: &'a InfiniteHip,
    head: u32,
    queries: &'a [Vec<f32>],
    /// The last key that a probe may look at.
    last: i64,
}

impl<T: Element> Descent<'_, T> {
    /// The score of a chunk from here on, over every path that near ties allow. `size` is an upper bound on the number of keys left.
    fn go(&self, (left, right): (i64, i64), size: i64, best: Score) -> Score {
        let center = (left + right) / 2;
        let first = self.method.representative == Representative::First;
        let probes = if first { [left, center] } else { [(left + center) / 2, (center + right) / 2] };
        let [key_left, key_right] = probes.map(|key| key.min(self.last));
        let [score_left, score_right] = [key_left, key_right].map(|key| {
            let score = |q: &Vec<f32>| self.replay.score(q, self.head, key);
            self.queries.iter().map(score).fold(MASKED, Score::max)
        });
        let follow = |half: (i64, i64), score: Score| {
            let best = if first { score } else { best.max(score) };
            if size <= 2 { best } else { self.go(half, size - size / 2, best) }
        };
        // Two probes of one key give one score, and a tie goes right.
        if key_left == key_right || score_left.high <= score_right.low {
            follow((center, right), score_right)
        } else if score_left.low > score_right.high {
            follow((left, center), score_left)
        } else {
            follow((left, center), score_left).hull(follow((center, right), score_right))
        }
    }
}
