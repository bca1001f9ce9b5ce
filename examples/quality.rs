//! The losses of sparse attention on inputs of known structure: captured attention mass, recall of the best blocks, and the error of the
//! output, for HiP and InfiniteHiP, beside the best and random blocks of the same budget.
//!
//! `cargo run --release --example quality`
//!
//! A tree search finds keys whose neighbours are alike: correlated keys, wide needles, and diagonals, where a block of queries looks for a
//! run of keys. It misses needles of one key and strides among unrelated keys.

use wattn::quality::synthetic::Pattern;
use wattn::quality::{QualityTable, synthetic_table};
use wattn::{
    AttentionProblem, AttentionShape, DType, Hip, InfiniteHip, Mask, Preset, Representative, SelectionProblem, Stage,
};

fn main() -> wattn::Result<()> {
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 256,
        seq_len_kv: 16_384,
        num_q_heads: 2,
        num_kv_heads: 1,
        head_dim: 64,
        head_dim_v: 64,
    };
    let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
    // Budgets of 512 selected keys, 64 sinks and a window of 256: once with a list for each query head, once with a list for both.
    let hip = Hip::default().with_top_k(512).with_sink_size(64).with_window_size(256);
    let stage = |chunk_size, keep, stride_q| Stage::new(chunk_size, keep).with_stride_q(stride_q);
    let infinite_hip = InfiniteHip::from(Preset::Debug)
        .with_stages(vec![stage(64, 4096, 4), stage(16, 1024, 2), stage(4, 512, 1)])
        .with_sink_size(64)
        .with_window_size(256)
        .with_representative(Representative::Center);
    let selections = [
        ("HiP", SelectionProblem::new(shape, DType::F32, hip)),
        ("InfiniteHiP", SelectionProblem::new(shape, DType::F32, infinite_hip)),
    ];
    let table = synthetic_table(&problem, &selections, &Pattern::STANDARD, 1)?;
    println!("{table}");

    let correlated = Pattern::STANDARD[1].to_string();
    let (hip, random) = (mass(&table, &correlated, "HiP"), mass(&table, &correlated, "HiP, random blocks"));
    assert!(hip > 3.0 * random, "HiP finds no more than chance");
    println!("{correlated}: HiP keeps {hip:.2} of the attention, random blocks {random:.2}");
    Ok(())
}

fn mass(table: &QualityTable, set: &str, method: &str) -> f64 {
    let row = table.rows.iter().find(|row| row.set == set && row.method == method);
    row.map_or(0.0, |row| row.mass.mean)
}
