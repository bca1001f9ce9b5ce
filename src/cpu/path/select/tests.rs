//! The golden vectors of the specification, and attention over them.

use super::*;
use crate::{
    AttentionProblem, AttentionShape, DType, GroupBounds, HeadReduction, Hip, HostInputs, HostTensor, InfiniteHip,
    Mask, Representative, Stage, cpu,
};

struct Draws(u32);

impl Draws {
    fn tensor(&mut self, shape: [u32; 4]) -> HostTensor {
        let mut draw = || {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((self.0 >> 24) % 7) as f32 - 3.0
        };
        HostTensor::new(shape, (0..shape.iter().product()).map(|_| draw()).collect()).unwrap()
    }
}

struct Case {
    shape: AttentionShape,
    q: HostTensor,
    k: HostTensor,
    v: HostTensor,
}

fn case(seed: u32, seq_len_q: u32, seq_len_kv: u32) -> Case {
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q,
        seq_len_kv,
        num_q_heads: 2,
        num_kv_heads: 1,
        head_dim: 8,
        head_dim_v: 8,
    };
    let mut draws = Draws(seed);
    let [q, k, v] = [shape.q(), shape.k(), shape.v()].map(|shape| draws.tensor(shape));
    Case { shape, q, k, v }
}

impl Case {
    fn inputs(&self) -> HostInputs<'_> {
        HostInputs::new(&self.q, &self.k, &self.v)
    }

    fn problem(&self, method: impl Into<SelectionMethod>) -> SelectionProblem {
        SelectionProblem::new(self.shape, DType::F32, method).with_selection_scale(1.0)
    }

    fn select(&self, problem: &SelectionProblem) -> HostBlockLists {
        select(problem, &self.inputs().for_selection()).unwrap()
    }

    fn without_queries(mut self) -> Self {
        self.q = HostTensor::zeros(self.shape.q());
        self
    }

    /// Only the last query: a decode step.
    fn decode(mut self) -> Self {
        self.q = HostTensor::new([1, 1, 2, 8], self.q.data()[self.q.data().len() - 16..].to_vec()).unwrap();
        self.shape.seq_len_q = 1;
        self
    }
}

const HIP: Hip = Hip {
    top_k: 64,
    block_size_q: 16,
    stride_q: 2,
    block_size_k: 2,
    stride_k: 1,
    sink_size: 16,
    window_size: 64,
    representative: Representative::Center,
    group_bounds: GroupBounds::Even,
    refresh_interval: 1,
};

fn infinite(block_size_q: u32, strides: [u32; 3]) -> InfiniteHip {
    let stage = |chunk_size, keep, stride_q| Stage { chunk_size, keep, stride_q, refresh_interval: 1 };
    InfiniteHip {
        block_size_q,
        stages: vec![stage(32, 128, strides[0]), stage(8, 64, strides[1]), stage(4, 32, strides[2])],
        sink_size: 16,
        window_size: 64,
        representative: Representative::Center,
        reduction: HeadReduction::Max,
    }
}

#[test]
fn hip_finds_the_golden_lists() {
    let g1 = case(1, 16, 512);
    let lists = g1.select(&g1.problem(HIP));
    let head_0 = [
        16, 20, 42, 44, 90, 92, 98, 120, 122, 146, 170, 184, 188, 208, 218, 220, 232, 234, 270, 300, 302, 324, 342,
        352, 354, 356, 376, 378, 430, 434, 436, 438,
    ];
    let head_1 = [
        28, 30, 32, 38, 70, 74, 94, 104, 118, 124, 126, 128, 132, 134, 232, 242, 258, 272, 298, 300, 302, 334, 340,
        350, 374, 378, 404, 408, 410, 434, 436, 438,
    ];
    assert_eq!([lists.list(0, 0, 0), lists.list(0, 1, 0)], [head_0, head_1]);
    let first = [
        16, 28, 34, 36, 42, 44, 102, 110, 124, 142, 146, 158, 170, 174, 232, 234, 264, 286, 300, 318, 352, 354, 356,
        376, 378, 396, 426, 430, 434, 436, 438, 444,
    ];
    let last = [
        16, 20, 42, 54, 60, 64, 68, 80, 90, 108, 120, 122, 140, 154, 156, 158, 162, 208, 270, 284, 300, 324, 342, 352,
        354, 356, 376, 378, 424, 434, 436, 438,
    ];
    for (representative, expected) in [(Representative::First, first), (Representative::Last, last)] {
        let lists = g1.select(&g1.problem(Hip { representative, ..HIP }));
        assert_eq!(lists.list(0, 0, 0), expected, "{representative:?}");
    }
    let g1 = g1.decode();
    let decode = [
        44, 46, 56, 60, 106, 108, 116, 118, 140, 192, 194, 206, 208, 228, 230, 240, 270, 300, 328, 334, 336, 346, 350,
        372, 376, 378, 396, 398, 426, 428, 430, 432,
    ];
    assert_eq!(g1.select(&g1.problem(Hip { stride_q: 1, ..HIP })).list(0, 0, 0), decode);
    let zero = case(1, 16, 512).without_queries();
    let even: Vec<u32> = (16..80).step_by(2).collect();
    assert_eq!(zero.select(&zero.problem(HIP)).list(0, 0, 0), even);
    let g2 = case(7, 5, 300);
    let hip = Hip { top_k: 48, stride_q: 1, block_size_k: 4, sink_size: 8, window_size: 32, ..HIP };
    let expected = [48, 52, 56, 60, 92, 120, 144, 180, 184, 204, 208, 264];
    assert_eq!(g2.select(&g2.problem(hip)).list(0, 1, 0), expected);
}

#[test]
fn infinite_hip_finds_the_golden_lists_and_stages() {
    let stages = |case: &Case, method: InfiniteHip| {
        let problem = case.problem(method);
        let mut cache = StageCache::default();
        let lists = select_from(&problem, &case.inputs().for_selection(), 0, &mut cache).unwrap();
        let mut stages = cache.survivors[0].clone();
        stages.push(lists.list(0, 0, 0).to_vec());
        // The later stages alone give the same result.
        for first_stage in [1, 2] {
            let mut cache = cache.clone();
            let again = select_from(&problem, &case.inputs().for_selection(), first_stage, &mut cache).unwrap();
            assert_eq!(again, lists);
        }
        stages
    };
    let g1 = case(1, 16, 512);
    let expected =
        [vec![16, 48, 304, 336], vec![16, 40, 56, 64, 312, 320, 336, 344], vec![44, 60, 64, 316, 324, 336, 344, 348]];
    assert_eq!(stages(&g1, infinite(16, [1; 3])), expected);
    assert_eq!(stages(&g1, infinite(16, [2, 2, 1]))[2], [60, 304, 308, 312, 316, 324, 432, 436]);
    let decode = [
        vec![80, 144, 240, 368],
        vec![80, 88, 104, 152, 168, 264, 368, 376],
        vec![80, 92, 108, 152, 168, 172, 268, 376],
    ];
    assert_eq!(stages(&g1.decode(), infinite(64, [4, 4, 1])), decode);
    let zero = [vec![16, 48, 80, 112], vec![16, 24, 32, 40, 48, 56, 64, 72], vec![16, 20, 24, 28, 32, 36, 40, 44]];
    assert_eq!(stages(&case(1, 16, 512).without_queries(), infinite(16, [1; 3])), zero);
}

#[test]
fn attention_over_the_golden_lists() {
    let check = |case: &Case, problem: &SelectionProblem, head: u32, lse: f32, out: [f32; 8]| {
        let lists = case.select(problem);
        let attention =
            AttentionProblem::new(case.shape, DType::F32).with_mask(Mask::Causal).with_blocks(problem.blocks());
        let output = cpu::attend(&attention, &case.inputs().with_blocks(&lists)).unwrap();
        let (row, head) = (case.shape.seq_len_q as usize - 1, head as usize);
        // The vectors have seven decimals.
        assert!((output.lse.row(0, row, head)[0] - lse).abs() < 2e-6);
        for (got, want) in output.out.row(0, row, head).iter().zip(out) {
            assert!((got - want).abs() < 2e-6, "{got}, not {want}");
        }
    };
    let g1 = case(1, 16, 512);
    let out =
        [1.828_263_9, -1.032_236_9, -1.097_872_7, 1.285_700_5, -0.956_268_3, -0.753_097_8, 0.339_124_8, -1.215_290_8];
    check(&g1, &g1.problem(HIP), 0, 13.589_07, out);
    let infinite_problem = g1.problem(infinite(16, [1; 3]));
    let out =
        [2.048_604_8, -1.366_756_3, -1.054_141, 1.854_831_9, -1.487_451_8, -0.656_482_4, 0.710_448_1, -1.239_606_8];
    check(&g1, &infinite_problem, 0, 13.387_311, out);
    let out = [1.261_482, 0.182_646_4, 1.863_313_9, 0.446_083_9, 0.761_808_3, 0.253_125_6, 0.991_895_4, 0.185_798_5];
    check(&g1, &infinite_problem, 1, 8.038_321_1, out);
    let g1 = g1.decode();
    let out =
        [-0.698_939_6, 0.010_335, -0.294_440_7, -0.142_018_3, 0.686_308_3, -0.600_172_4, -0.343_170_5, -0.276_808_4];
    check(&g1, &g1.problem(infinite(64, [4, 4, 1])), 0, 12.815_305, out);
}

#[test]
fn stages_that_cannot_run_are_errors() {
    let g1 = case(1, 16, 512);
    let inputs = g1.inputs();
    let problem = g1.problem(infinite(16, [1; 3]));
    let mut cache = StageCache::default();
    let run = |problem: &SelectionProblem, stage, cache: &mut StageCache| {
        select_from(problem, &inputs.for_selection(), stage, cache)
    };
    assert!(matches!(run(&problem, 3, &mut cache), Err(Error::Invalid { field: "first_stage", value: 3, .. })));
    assert!(matches!(run(&problem, 1, &mut cache), Err(Error::Argument { argument: "cache", .. })));
    run(&problem, 0, &mut cache).unwrap();
    run(&problem, 1, &mut cache).unwrap();
    let other = g1.problem(infinite(8, [1; 3]));
    assert!(matches!(run(&other, 1, &mut cache), Err(Error::Argument { argument: "cache", .. })));
    assert!(matches!(run(&g1.problem(HIP), 1, &mut cache), Err(Error::Invalid { field: "first_stage", .. })));
}

/// A round may reuse scores of its own probes from the round before only. Chunks that are no powers of two halve into spans of
/// different sizes, and the last spans of a sequence are cut.
#[test]
fn chunks_of_any_size_descend_as_the_oracle_does() {
    let stage = |chunk_size, keep| Stage { chunk_size, keep, stride_q: 2, refresh_interval: 1 };
    for representative in [Representative::Center, Representative::First] {
        for chunk_sizes in [[28, 14, 7], [24, 12, 6], [20, 10, 5], [12, 6, 3], [36, 18, 9]] {
            let keep = |i: usize, chunks| stage(chunk_sizes[i], chunks * chunk_sizes[i]);
            let method = InfiniteHip {
                stages: vec![keep(0, 5), keep(1, 6), keep(2, 7)],
                sink_size: 2 * chunk_sizes[2],
                representative,
                ..infinite(16, [1, 1, 1])
            };
            for (seed, len) in (0..12).map(|seed| (seed, 480 + seed)) {
                let case = case(seed, 16, len);
                let problem = case.problem(method.clone());
                let expected = cpu::oracle::select(&problem, &case.inputs().for_selection()).unwrap();
                assert_eq!(case.select(&problem), expected, "{representative:?}, {chunk_sizes:?}, {len} keys");
            }
        }
    }
}
