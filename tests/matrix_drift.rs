//! The loss in sums of a matrix unit that truncates instead of rounding, in walks as long as plans allow. A model of an H100's units
//! (measured, see `src/docs/devices.md`), since software devices round.

mod common;

use common::Random;
use half::f16;
use wattn::{AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, MatrixTile, Tier};

/// `value` without the bits below `2^(exponent of largest - bits)`, towards 0.
fn cut(value: f64, largest: f64, bits: i32) -> f64 {
    let unit = 2f64.powi(largest.abs().log2().floor() as i32 - bits);
    (value / unit).trunc() * unit
}

/// One product: the terms and the sum so far are aligned to the largest of them, with two bits more than an f32 has.
fn product(sum: f64, terms: &[f64]) -> f64 {
    let all = || terms.iter().chain([&sum]);
    let largest = all().fold(0.0f64, |largest, term| largest.max(term.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    let total: f64 = all().map(|&term| cut(term, largest, 25)).sum();
    if total == 0.0 { 0.0 } else { cut(total, total, 23) }
}

/// The loss, relative to the sum, for values from 0 to 1 weighted by a softmax, 16 at a time, with sums that are added up in f32 after
/// every `run` keys.
fn loss(num_keys: usize, run: usize) -> f64 {
    let mut random = Random(1);
    let (mut sum, mut folded, mut exact) = (0.0, 0.0f32, 0.0);
    for first in (0..num_keys).step_by(16) {
        let terms: Vec<f64> = (0..16)
            .map(|_| {
                let score = 3.0 + (random.unit() + random.unit() + random.unit()) * 2.0;
                let weight = f16::from_f32(score.exp2()).to_f64();
                weight * f16::from_f32(random.unit().abs()).to_f64()
            })
            .collect();
        exact += terms.iter().sum::<f64>();
        sum = product(sum, &terms);
        if (first + 16).is_multiple_of(run) {
            folded += core::mem::take(&mut sum) as f32;
        }
    }
    (exact - f64::from(folded) - sum) / exact
}

#[test]
fn a_walk_of_any_length_loses_little() {
    let shape = |seq_len_kv| AttentionShape {
        batch_size: 1,
        seq_len_q: 4096, // many rows, so that walks are not split
        seq_len_kv,
        num_q_heads: 32,
        num_kv_heads: 32,
        head_dim: 128,
        head_dim_v: 128,
    };
    let mut caps = DeviceCaps::BASELINE;
    (caps.shader_f16, caps.subgroup_size) = (true, Some(32..=32));
    caps.matrix_tiles = vec![MatrixTile::square(16)];
    caps.max_workgroup_storage_bytes = 48 << 10;
    let run_of = |seq_len_kv| {
        let problem = AttentionProblem::new(shape(seq_len_kv), DType::F16);
        let plan = AttentionPlan::with_tier(&problem, &caps, Tier::Matrix).unwrap();
        let run = plan.dispatches()[0].specialization.constant("FOLD_TILES").unwrap() * plan.tiling().tile_kv();
        if run == 0 { usize::MAX } else { run as usize }
    };
    // A quarter of f16's rounding error, half a unit in the last place.
    let allowed = 2f64.powi(-13);
    for num_keys in [4096, 16384, 32768, 1 << 18] {
        let lost = loss(num_keys, run_of(num_keys as u32));
        assert!(lost < allowed, "{num_keys} keys lose {lost:e} of their sum, allowed {allowed:e}");
        println!("{num_keys} keys: {lost:.2e}, in one run {:.2e}", loss(num_keys, usize::MAX));
    }
    // In one run they would lose more than a unit of an f16.
    assert!(loss(1 << 18, usize::MAX) > 2f64.powi(-10));
}
