mod common;
use common::gpu::contexts;
use wattn::*;

fn lcg(seed: u32, count: usize, state: &mut u32, init: bool) -> Vec<f32> {
    if init { *state = seed; }
    (0..count).map(|_| { *state = state.wrapping_mul(1664525).wrapping_add(1013904223); ((*state >> 24) % 7) as f32 - 3.0 }).collect()
}

#[test]
fn golden_quick() {
    let shape = AttentionShape { batch_size: 1, seq_len_q: 16, seq_len_kv: 512, num_q_heads: 2, num_kv_heads: 1, head_dim: 8, head_dim_v: 8 };
    let mut st = 1u32;
    let q = HostTensor::new(shape.q(), lcg(1, 16*2*8, &mut st, true)).unwrap();
    let k = HostTensor::new(shape.k(), lcg(1, 512*8, &mut st, false)).unwrap();
    let hip = Hip { top_k: 64, block_size_q: 16, stride_q: 2, block_size_k: 2, stride_k: 1, sink_size: 16, window_size: 64, ..Hip::default() };
    let problem = SelectionProblem::new(shape, DType::F32, hip).selection_scale(1.0);
    for ctx in contexts() {
        for tier in Tier::ALL.into_iter().filter(|&t| ctx.caps().require(t).is_ok()) {
            println!("{} {tier}", ctx.describe());
            let b = ctx.select_blocking(&problem, &SelectionInputs { q: &q, k: &k, seq_lens_kv: None }, tier).unwrap();
            println!("{:?}", b.list(0, 0, 0));
            assert_eq!(b.list(0, 0, 0), [16, 20, 42, 44, 90, 92, 98, 120, 122, 146, 170, 184, 188, 208, 218, 220, 232, 234, 270, 300, 302, 324, 342, 352, 354, 356, 376, 378, 430, 434, 436, 438]);
            assert_eq!(b.list(0, 1, 0), [28, 30, 32, 38, 70, 74, 94, 104, 118, 124, 126, 128, 132, 134, 232, 242, 258, 272, 298, 300, 302, 334, 340, 350, 374, 378, 404, 408, 410, 434, 436, 438]);
            let stage = |chunk_size, keep, stride_q| Stage { chunk_size, keep, stride_q, refresh_interval: 1 };
            let inf = InfiniteHip { block_size_q: 16, stages: vec![stage(32, 128, 1), stage(8, 64, 1), stage(4, 32, 1)], sink_size: 16, window_size: 64, representative: Representative::Center, reduction: HeadReduction::Max };
            let p = SelectionProblem::new(shape, DType::F32, inf.clone()).selection_scale(1.0);
            let b = ctx.select_blocking(&p, &SelectionInputs { q: &q, k: &k, seq_lens_kv: None }, tier).unwrap();
            assert_eq!(b.list(0, 0, 0), [44, 60, 64, 316, 324, 336, 344, 348]);
            let inf = InfiniteHip { stages: vec![stage(32, 128, 2), stage(8, 64, 2), stage(4, 32, 1)], ..inf };
            let p = SelectionProblem::new(shape, DType::F32, inf.clone()).selection_scale(1.0);
            let b = ctx.select_blocking(&p, &SelectionInputs { q: &q, k: &k, seq_lens_kv: None }, tier).unwrap();
            assert_eq!(b.list(0, 0, 0), [60, 304, 308, 312, 316, 324, 432, 436]);
        }
    }
}
