//! The CPU path on the shapes of `benches/peers/ort.py`: causal, f32, (heads, query rows, keys, width).
//!
//! FLOP are counted as `4 * heads * (query * keys / 2) * width`, half the square, so criterion's "elem/s" are FLOP/s.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wattn::{AttentionProblem, AttentionShape, DType, HostInputs, HostTensor, Mask, cpu};

const SHAPES: [[u32; 4]; 4] = [[8, 1024, 1024, 64], [4, 2048, 2048, 128], [2, 4096, 4096, 128], [8, 1, 16384, 128]];

/// Uniform in [-1, 1), from a linear congruential generator.
fn random(shape: [u32; 4], seed: u64) -> HostTensor {
    let mut state = seed;
    let mut tensor = HostTensor::zeros(shape);
    for x in tensor.data_mut() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    }
    tensor
}

/// First, middle and last query of the first and last head against the f64 oracle.
fn check(problem: &AttentionProblem, inputs: &HostInputs<'_>) {
    let shape = problem.shape();
    let got = cpu::attend(problem, inputs).expect("the problem is valid");
    for q_index in [0, shape.seq_len_q / 2, shape.seq_len_q - 1] {
        for q_head in [0, shape.num_q_heads - 1] {
            let (row, lse) = cpu::oracle::attend_row(problem, inputs, 0, q_index, q_head);
            let out = got.out.row(0, q_index as usize, q_head as usize);
            let got_lse = got.lse.row(0, q_index as usize, q_head as usize)[0];
            // Ten times the error that was seen; |out| is at most 1 and lse about 10. The tests hold the exact bound.
            let worst = out.iter().zip(&row).map(|(x, y)| (f64::from(*x) - y).abs()).fold(0.0, f64::max);
            assert!(
                worst < 5e-6 && (f64::from(got_lse) - lse).abs() < 5e-6,
                "query {q_index} head {q_head}: {worst:e}"
            );
        }
    }
}

fn attend(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cpu_attend");
    for [heads, query, keys, width] in SHAPES {
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q: query,
            seq_len_kv: keys,
            num_q_heads: heads,
            num_kv_heads: heads,
            head_dim: width,
            head_dim_v: width,
        };
        let problem = AttentionProblem::new(shape, DType::F32).mask(Mask::Causal);
        let [q, k, v] = [(shape.q(), 1), (shape.k(), 2), (shape.v(), 3)].map(|(of, seed)| random(of, seed));
        let inputs = HostInputs { q: &q, k: &k, v: &v, seq_lens_kv: None };
        check(&problem, &inputs);
        let half_square = u64::from(query) * u64::from(keys) / 2;
        group.throughput(Throughput::Elements(4 * u64::from(heads) * half_square * u64::from(width)));
        group.bench_function(format!("{heads}x{query}x{keys}x{width}"), |bencher| {
            bencher.iter(|| cpu::attend(black_box(&problem), black_box(&inputs)));
        });
    }
    group.finish();
}

criterion_group!(benches, attend);
criterion_main!(benches);
