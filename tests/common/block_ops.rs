//! Cases of the operators on blocks of keys, and checks of their results.

use wattn::cpu::oracle;
use wattn::{
    AttentionShape, BlockScoreProblem, BlockScoring, Element, Granularity, HostBlockLists, HostTensor, MASKED_SCORE,
    Mark, Mask, PoolProblem, Pooling, Reduction, TopKProblem,
};

use super::{Random, UNIT, fill, painted, random};

/// Keys to pool, and the lengths of their sequences.
#[derive(Clone, Debug)]
pub struct PoolCase<T> {
    pub problem: PoolProblem,
    pub k: HostTensor<T>,
    pub seq_lens: Option<Vec<u32>>,
}

/// Lengths at every border of a block, a prime, different lengths in a batch; widths that fill no vec4 group; NaN in some channels.
pub fn pool_cases<T: Element>() -> Vec<PoolCase<T>> {
    let mut cases = Vec::new();
    for pooling in Pooling::ALL {
        for (seq, block_size) in [(0, 4), (1, 1), (1, 16), (15, 16), (16, 16), (17, 16), (127, 7), (40, 3), (300, 128)]
        {
            let shape = [2, seq, 3, 20];
            let problem = PoolProblem::new(shape, T::DTYPE, block_size, pooling);
            let k = if seq == 127 { random(shape, 11) } else { painted(shape, 37) };
            cases.push(PoolCase { problem, k: k.clone(), seq_lens: None });
            for lens in [[seq, seq / 2], [0, seq.saturating_sub(1)]] {
                // Memory past a length must not affect any result.
                let mut k = k.clone();
                for (batch, &len) in lens.iter().enumerate() {
                    let row = 3 * 20;
                    let from = (batch * seq as usize + len as usize) * row;
                    k.data_mut()[from..(batch + 1) * seq as usize * row].fill(T::from_f32(f32::NAN));
                }
                cases.push(PoolCase { problem: problem.with_seq_lens(), k, seq_lens: Some(lens.to_vec()) });
            }
        }
        let shape = [1, 33, 2, 256];
        let problem = PoolProblem::new(shape, T::DTYPE, 8, pooling);
        let k = fill(shape, |i| match i % 613 {
            7 => f32::NAN,
            8 => -f32::NAN,
            i => i as f32 / 64.0 - 4.0,
        });
        cases.push(PoolCase { problem, k, seq_lens: None });
        if pooling != Pooling::Mean {
            let k = fill(shape, |i| match i % 401 {
                7 => f32::INFINITY,
                8 => f32::NEG_INFINITY,
                i => i as f32 / 64.0 - 4.0,
            });
            cases.push(PoolCase { problem, k, seq_lens: None });
        }
    }
    cases
}

impl<T: Element> PoolCase<T> {
    /// A mean is a sum and a division, with each product and sum rounded; the other summaries are exact.
    #[track_caller]
    pub fn check(&self, on: &str, got: &HostTensor) {
        assert_eq!(got.shape(), self.problem.summaries_shape());
        let expected = oracle::pool(&self.problem, &self.k, self.seq_lens.as_deref()).unwrap();
        for (i, (&got, expected)) in got.data().iter().zip(expected).enumerate() {
            let bound = match self.problem.pooling() {
                Pooling::Mean => f64::from(self.problem.block_size() + 5) * UNIT * 4.0,
                _ => 0.0,
            };
            let equal = (got.is_nan() && expected.is_nan()) || f64::from(got) == expected;
            assert!(
                equal || (f64::from(got) - expected).abs() <= bound,
                "{on}, {:?}: {i} is {got}, not {expected}",
                self.problem
            );
        }
    }
}

/// Queries and summaries to score, and the key lengths of their sequences.
#[derive(Clone, Debug)]
pub struct ScoreCase<T> {
    pub problem: BlockScoreProblem,
    pub q: HostTensor<T>,
    pub summaries: HostTensor,
    pub seq_lens_kv: Option<Vec<u32>>,
    /// Whether products and sums are exact in f32.
    pub exact: bool,
}

/// Every way to score and to reduce, masks, lengths at the borders of blocks, sequences with fewer keys than queries.
pub fn score_cases<T: Element>() -> Vec<ScoreCase<T>> {
    let mut cases = Vec::new();
    let mut add = |problem: BlockScoreProblem, lens: Option<[u32; 2]>, exact: bool, nan: bool| {
        let bad = |i: usize, value: f32| if nan && i.is_multiple_of(97) { f32::NAN } else { value };
        // Quarters: sums of a hundred of their products are exact.
        let mut source = Random(5);
        let mut value = |i: usize| {
            let value = if exact { (source.bits() % 17) as f32 / 4.0 - 2.0 } else { source.unit() };
            bad(i, value)
        };
        let q = fill(problem.shape().q(), &mut value);
        // Vectors come in pairs, minimum and maximum.
        let dim = problem.shape().head_dim as usize;
        let vectors = problem.summaries_shape()[3] as usize / dim;
        let mut summaries = fill::<f32>(problem.summaries_shape(), &mut value);
        if vectors == 2 {
            for row in summaries.data_mut().chunks_exact_mut(2 * dim) {
                let (low, high) = row.split_at_mut(dim);
                for (low, high) in low.iter_mut().zip(high) {
                    if *low > *high {
                        core::mem::swap(low, high);
                    }
                }
            }
        }
        let problem = if lens.is_some() { problem.with_seq_lens_kv() } else { problem };
        cases.push(ScoreCase {
            problem,
            q,
            summaries,
            seq_lens_kv: lens.map(|lens| lens.to_vec()),
            exact: exact && !nan,
        });
    };
    let shape = |seq_len_q, seq_len_kv, head_dim| AttentionShape {
        batch_size: 2,
        seq_len_q,
        seq_len_kv,
        num_q_heads: 4,
        num_kv_heads: 2,
        head_dim,
        head_dim_v: 4,
    };
    for scoring in BlockScoring::ALL {
        for (seq_len_q, seq_len_kv) in [(1, 1), (1, 16), (1, 17), (5, 3), (7, 33), (13, 127), (0, 9), (3, 0)] {
            let problem = BlockScoreProblem::new(shape(seq_len_q, seq_len_kv, 20), T::DTYPE, 8, scoring);
            add(problem, None, true, false);
            add(problem.with_query_blocks(4, Reduction::Max).with_granularity(Granularity::KvHead), None, true, false);
            add(problem.with_mask(Mask::Full), Some([seq_len_kv, seq_len_kv / 2]), true, false);
            add(problem.with_complete_blocks(), Some([seq_len_kv / 3, seq_len_kv]), true, false);
            add(problem.with_complete_blocks().with_mask(Mask::Full), None, true, false);
        }
        for rows in Reduction::ALL {
            for heads in Reduction::ALL {
                let problem = BlockScoreProblem::new(shape(9, 50, 64), T::DTYPE, 16, scoring);
                let problem = problem.with_query_blocks(4, rows).with_head_reduction(heads);
                add(problem.with_granularity(Granularity::Layer), None, false, false);
                add(problem.with_granularity(Granularity::KvHead), Some([50, 21]), false, true);
            }
        }
        add(BlockScoreProblem::new(shape(2, 40, 256), T::DTYPE, 4, scoring), None, false, false);
        add(BlockScoreProblem::new(shape(1, 700, 4), T::DTYPE, 1, scoring), None, true, false);
    }
    cases
}

impl<T: Element> ScoreCase<T> {
    /// A score is a sum of `head_dim` products, some added up over rows and heads.
    #[track_caller]
    pub fn check(&self, on: &str, got: &HostTensor) {
        let problem = &self.problem;
        assert_eq!(got.shape(), problem.scores_shape());
        let expected = oracle::block_scores(problem, &self.q, &self.summaries, self.seq_lens_kv.as_deref()).unwrap();
        let shape = problem.shape();
        let roundings = f64::from(shape.head_dim + shape.seq_len_q + shape.num_q_heads + 8);
        // Inputs are at most 1 there; where sums are exact, only means are rounded.
        let terms = f64::from(shape.head_dim) * f64::from(shape.seq_len_q.max(1) * shape.num_q_heads);
        let bound = if self.exact { 0.0 } else { roundings * UNIT * terms };
        for (i, (&got, expected)) in got.data().iter().zip(expected).enumerate() {
            let masked = expected == f64::from(MASKED_SCORE);
            let same = (got.is_nan() && expected.is_nan())
                || if masked { got == MASKED_SCORE } else { f64::from(got) == expected };
            let near = !masked && (f64::from(got) - expected).abs() <= bound;
            assert!(same || near, "{on}, {problem:?}, {:?}: {i} is {got}, not {expected}", self.seq_lens_kv);
        }
    }
}

/// Scores of rows, and the caller's marks for their entries.
#[derive(Clone, Debug)]
pub struct TopKCase {
    pub name: String,
    pub problem: TopKProblem,
    pub scores: HostTensor,
    pub marks: Option<Vec<Mark>>,
}

/// Numbers of entries around the sizes of workgroups and words, ties of all kinds, NaN and infinities, ends and marks.
pub fn top_k_cases() -> Vec<TopKCase> {
    let mut cases = Vec::new();
    for (n, k) in [(0, 3), (1, 1), (2, 5), (31, 4), (32, 32), (33, 8), (64, 63), (257, 20), (1021, 100), (2500, 7)] {
        for (kind, values) in [("random", 0), ("three values", 3), ("one value", 1), ("bad", 50), ("masked", 7)] {
            let shape = [2, 1, 3, n];
            let mut source = Random(u64::from(n + values));
            let scores = fill::<f32>(shape, |i| match (kind, source.bits() % 11) {
                ("random", _) => 100.0 * source.unit(),
                ("bad", 0) => f32::NAN,
                ("bad", 1) => f32::INFINITY,
                ("bad", 2) => f32::NEG_INFINITY,
                ("bad", 3) => -0.0,
                ("bad", 4) => -f32::NAN,
                ("bad", 5) => -3.2e38,
                // The last row has no entries.
                ("masked", _) if i >= 5 * n as usize || i % 7 > 3 => MASKED_SCORE,
                _ => (source.bits() % u64::from(values.max(1))) as f32 - 1.0,
            });
            let marks: Vec<Mark> = (0..scores.data().len())
                .map(|_| [Mark::Free, Mark::Forced, Mark::Forbidden, Mark::Free][source.bits() as usize % 4])
                .collect();
            let mut add = |what: &str, problem: TopKProblem, marks: Option<Vec<Mark>>| {
                let name = format!("{k} of {n}, {kind}{what}");
                cases.push(TopKCase { name, problem, scores: scores.clone(), marks });
            };
            let problem = TopKProblem::new(shape, k);
            add("", problem, None);
            add(", last forced", problem.with_forced_last(1).with_block_size(16), None);
            let ends = problem.with_forced_first(k / 3).with_forced_last(k / 2);
            add(", ends forced", ends, None);
            add(", marks", ends.with_marks().with_block_size(3), Some(marks));
        }
    }
    cases
}

impl TopKCase {
    #[track_caller]
    pub fn check(&self, on: &str, got: &HostBlockLists) {
        let expected = oracle::top_k(&self.problem, &self.scores, self.marks.as_deref()).unwrap();
        assert!(*got == expected, "{on}, {}: {got:?}, not {expected:?}", self.name);
    }
}
