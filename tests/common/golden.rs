//! The golden vectors of the specification, 6.7: exact integers from an implementation that shares nothing with ours.

use wattn::{
    AttentionProblem, AttentionShape, DType, Hip, HostInputs, HostTensor, InfiniteHip, Mask, Representative,
    SelectionInputs, SelectionMethod, SelectionProblem, Stage,
};

use super::select::Selector;

/// One vector. All of them have one sequence and one query block.
pub struct Golden {
    pub name: &'static str,
    pub problem: SelectionProblem,
    pub q: HostTensor,
    pub k: HostTensor,
    pub v: HostTensor,
    /// `(set, blocks)`.
    pub lists: Vec<(u32, Vec<u32>)>,
    /// HiP, set 0: the first blocks of the groups after each round.
    pub rounds: Vec<Vec<(u32, u32)>>,
    /// InfiniteHiP, set 0: the chunks that survive each stage.
    pub survivors: Vec<Vec<u32>>,
    /// Attention of the last query.
    pub rows: Vec<GoldenRow>,
}

/// Attention of one head.
pub struct GoldenRow {
    pub q_head: u32,
    pub num_keys: Option<usize>,
    pub lse: f64,
    pub out: Option<[f64; 8]>,
    /// `(lse of dense attention, captured mass)`.
    pub dense: Option<(f64, f64)>,
}

impl Golden {
    pub fn selection_inputs(&self) -> SelectionInputs<'_> {
        SelectionInputs::new(&self.q, &self.k)
    }

    pub fn inputs(&self) -> HostInputs<'_> {
        HostInputs::new(&self.q, &self.k, &self.v)
    }

    /// Attention to the lists, scaled by `1 / sqrt(8)`.
    pub fn attention(&self) -> AttentionProblem {
        AttentionProblem::new(*self.problem.shape(), DType::F32)
            .with_mask(Mask::Causal)
            .with_blocks(self.problem.blocks())
    }

    /// The last query.
    pub fn q_index(&self) -> u32 {
        self.problem.shape().seq_len_q - 1
    }
}

/// Asserts that a selector finds every list.
pub fn check_selector(select: Selector<'_>, what: &str) {
    for golden in all() {
        let blocks = select(&golden.problem, &golden.selection_inputs()).unwrap();
        assert_eq!(blocks.shape(), golden.problem.blocks().indices_shape(golden.problem.shape()), "{}", golden.name);
        for (set, list) in &golden.lists {
            assert_eq!(blocks.list(0, *set, 0), list, "{what}: {}, set {set}", golden.name);
        }
    }
}

/// Draws of the specification's generator.
fn draws(seed: u32) -> impl FnMut() -> f32 {
    let mut x = seed;
    move || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((x >> 24) % 7) as f32 - 3.0
    }
}

fn shape(seq_len_q: u32, seq_len_kv: u32) -> AttentionShape {
    AttentionShape { batch_size: 1, seq_len_q, seq_len_kv, num_q_heads: 2, num_kv_heads: 1, head_dim: 8, head_dim_v: 8 }
}

/// q, k and v of a case.
fn tensors(seed: u32, shape: &AttentionShape) -> [HostTensor; 3] {
    let mut draw = draws(seed);
    [shape.q(), shape.k(), shape.v()].map(|of| super::fill(of, |_| draw()))
}

fn g1(name: &'static str, method: impl Into<SelectionMethod>, lists: &[(u32, &[u32])]) -> Golden {
    let shape = shape(16, 512);
    let [q, k, v] = tensors(1, &shape);
    assert_eq!(q.row(0, 0, 0), [1.0, 0.0, 0.0, 2.0, 2.0, 0.0, -1.0, -1.0]);
    assert_eq!(k.row(0, 0, 0), [2.0, 3.0, -3.0, 1.0, -1.0, 1.0, 2.0, -2.0]);
    assert_eq!(v.row(0, 511, 0), [-1.0, -1.0, 0.0, 3.0, -1.0, 1.0, 2.0, -1.0]);
    Golden {
        name,
        problem: SelectionProblem::new(shape, DType::F32, method).with_selection_scale(1.0),
        q,
        k,
        v,
        lists: lists.iter().map(|&(set, list)| (set, list.to_vec())).collect(),
        rounds: Vec::new(),
        survivors: Vec::new(),
        rows: Vec::new(),
    }
}

/// The last query of G1 alone.
fn decode(of: Golden) -> Golden {
    let (method, shape) = (of.problem.method().clone(), shape(1, 512));
    let q = of.q.data()[15 * 2 * 8..].to_vec();
    let problem = SelectionProblem::new(shape, DType::F32, method).with_selection_scale(1.0);
    Golden { q: HostTensor::new(shape.q(), q).unwrap(), problem, ..of }
}

fn zero_q(mut of: Golden) -> Golden {
    of.q.data_mut().fill(0.0);
    of
}

const HIP: Hip = Hip::new()
    .with_top_k(64)
    .with_block_size_q(16)
    .with_stride_q(2)
    .with_block_size_k(2)
    .with_stride_k(1)
    .with_sink_size(16)
    .with_window_size(64)
    .with_representative(Representative::Center)
    .with_group_bounds(wattn::GroupBounds::Even)
    .with_refresh_interval(1);

fn infinite_hip(block_size_q: u32, strides: [u32; 3]) -> InfiniteHip {
    let [a, b, c] = strides;
    let stage = |chunk_size, keep, stride_q| Stage::new(chunk_size, keep).with_stride_q(stride_q);
    InfiniteHip::new(vec![stage(32, 128, a), stage(8, 64, b), stage(4, 32, c)])
        .with_block_size_q(block_size_q)
        .with_sink_size(16)
        .with_window_size(64)
        .with_representative(Representative::Center)
        .with_reduction(wattn::HeadReduction::Max)
}

fn stages(survivors: [&[u32]; 3]) -> Vec<Vec<u32>> {
    survivors.map(<[u32]>::to_vec).to_vec()
}

/// Every vector.
pub fn all() -> Vec<Golden> {
    let mut all = hip();
    all.extend(infinite());
    all
}

fn hip() -> Vec<Golden> {
    let head_0 = [
        16, 20, 42, 44, 90, 92, 98, 120, 122, 146, 170, 184, 188, 208, 218, 220, 232, 234, 270, 300, 302, 324, 342,
        352, 354, 356, 376, 378, 430, 434, 436, 438,
    ];
    let head_1 = [
        28, 30, 32, 38, 70, 74, 94, 104, 118, 124, 126, 128, 132, 134, 232, 242, 258, 272, 298, 300, 302, 334, 340,
        350, 374, 378, 404, 408, 410, 434, 436, 438,
    ];
    let first = [
        16, 28, 34, 36, 42, 44, 102, 110, 124, 142, 146, 158, 170, 174, 232, 234, 264, 286, 300, 318, 352, 354, 356,
        376, 378, 396, 426, 430, 434, 436, 438, 444,
    ];
    let last = [
        16, 20, 42, 54, 60, 64, 68, 80, 90, 108, 120, 122, 140, 154, 156, 158, 162, 208, 270, 284, 300, 324, 342, 352,
        354, 356, 376, 378, 424, 434, 436, 438,
    ];
    let lowest: Vec<u32> = (16..80).step_by(2).collect();
    let decoded = [
        44, 46, 56, 60, 106, 108, 116, 118, 140, 192, 194, 206, 208, 228, 230, 240, 270, 300, 328, 334, 336, 346, 350,
        372, 376, 378, 396, 398, 426, 428, 430, 432,
    ];
    let center = Golden {
        rounds: vec![
            vec![(0, 3), (13, 3), (36, 4), (40, 3), (50, 4), (57, 3), (63, 4), (74, 3)],
            vec![(0, 1), (1, 2), (13, 1), (14, 2), (36, 2), (38, 2), (41, 2), (50, 2)],
            [0, 2, 13, 14, 37, 38, 41, 52].map(|start| (start, 1)).to_vec(),
        ],
        rows: vec![
            GoldenRow {
                q_head: 0,
                num_keys: Some(144),
                lse: 13.5890694,
                out: Some([
                    1.8282639, -1.0322369, -1.0978727, 1.2857005, -0.9562683, -0.7530978, 0.3391248, -1.2152908,
                ]),
                dense: Some((13.9610752, 0.68935)),
            },
            GoldenRow { q_head: 1, num_keys: None, lse: 9.4257778, out: None, dense: None },
        ],
        ..g1("HiP", HIP, &[(0, &head_0), (1, &head_1)])
    };
    let with = |representative| HIP.with_representative(representative);
    vec![
        center,
        g1("HiP, first", with(Representative::First), &[(0, &first)]),
        g1("HiP, last", with(Representative::Last), &[(0, &last)]),
        zero_q(g1("HiP, all-zero q", HIP, &[(0, &lowest), (1, &lowest)])),
        decode(g1("HiP, decode", HIP.with_stride_q(1), &[(0, &decoded)])),
        g2(),
    ]
}

fn g2() -> Golden {
    let shape = shape(5, 300);
    let [q, k, v] = tensors(7, &shape);
    let hip = HIP.with_top_k(48).with_stride_q(1).with_block_size_k(4).with_sink_size(8).with_window_size(32);
    Golden {
        problem: SelectionProblem::new(shape, DType::F32, hip).with_selection_scale(1.0),
        q,
        k,
        v,
        ..g1("G2", hip, &[(1, &[48, 52, 56, 60, 92, 120, 144, 180, 184, 204, 208, 264])])
    }
}

fn infinite() -> Vec<Golden> {
    let found = [44, 60, 64, 316, 324, 336, 344, 348];
    let prefill = Golden {
        survivors: stages([&[16, 48, 304, 336], &[16, 40, 56, 64, 312, 320, 336, 344], &found]),
        rows: vec![
            GoldenRow {
                q_head: 0,
                num_keys: Some(112),
                lse: 13.3873113,
                out: Some([2.0486048, -1.3667563, -1.054141, 1.8548319, -1.4874518, -0.6564824, 0.7104481, -1.2396068]),
                dense: None,
            },
            GoldenRow {
                q_head: 1,
                num_keys: None,
                lse: 8.0383211,
                out: Some([1.261482, 0.1826464, 1.8633139, 0.4460839, 0.7618083, 0.2531256, 0.9918954, 0.1857985]),
                dense: None,
            },
        ],
        ..g1("InfiniteHiP", infinite_hip(16, [1; 3]), &[(0, &found)])
    };
    let lowest = [16, 20, 24, 28, 32, 36, 40, 44];
    let zero = Golden {
        survivors: stages([&[16, 48, 80, 112], &[16, 24, 32, 40, 48, 56, 64, 72], &lowest]),
        ..zero_q(g1("InfiniteHiP, all-zero q", infinite_hip(16, [1; 3]), &[(0, &lowest)]))
    };
    let averaged = [60, 304, 308, 312, 316, 324, 432, 436];
    let decoded = [80, 92, 108, 152, 168, 172, 268, 376];
    let decode = Golden {
        survivors: stages([&[80, 144, 240, 368], &[80, 88, 104, 152, 168, 264, 368, 376], &decoded]),
        rows: vec![GoldenRow {
            q_head: 0,
            num_keys: None,
            lse: 12.8153054,
            out: Some([-0.6989396, 0.010335, -0.2944407, -0.1420183, 0.6863083, -0.6001724, -0.3431705, -0.2768084]),
            dense: None,
        }],
        ..decode(g1("InfiniteHiP, decode", infinite_hip(64, [4, 4, 1]), &[(0, &decoded)]))
    };
    let averages = g1("InfiniteHiP, averaged queries", infinite_hip(16, [2, 2, 1]), &[(0, &averaged)]);
    vec![prefill, averages, zero, decode]
}
