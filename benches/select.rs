//! Selection alone against the length of the context, from 8k to 1M keys, for one block of 64 queries and for decoding:
//! the CPU path, and every adapter. Ends with the exponent of time against length.
//!
//! `cargo bench --bench select`
//!
//! The number of queries is fixed: HiP's cost grows with the logarithm of the length, InfiniteHiP's first stage with the
//! length itself, its others not at all (specification 1.9). A whole prompt has one power more.

mod common;

use std::collections::BTreeMap;

use common::sparse::{SparseCase, exponent, on_each_device, settings, time};
use criterion::{Criterion, criterion_group, criterion_main};
use wattn::{Hip, Preset, SelectionMethod};

fn select(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("select");
    settings(&mut group);
    let contexts = common::contexts();
    // By device, method and queries: (keys, seconds).
    let mut times: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let methods: [(&str, u32, SelectionMethod); 4] = [
        ("HiP", 64, Hip::default().into()),
        ("HiP", 1, Hip { refresh_interval: 1, ..Hip::decode() }.into()),
        ("InfiniteHiP 3K", 64, Preset::ThreeK.into()),
        ("InfiniteHiP 3K", 1, Preset::ThreeK.into()),
    ];
    for (name, seq_len_q, method) in methods {
        for seq_len_kv in (13..=20).map(|log2| 1u32 << log2) {
            let case = SparseCase::new(name, [1, seq_len_q, seq_len_kv], method.clone());
            on_each_device(&case, &contexts, |mut runs, _| {
                let label = format!("{}/{}", runs.device, runs.case.name);
                if let Some(seconds) = time(&mut group, &label, || (runs.select)(0)) {
                    let series = format!("{:<12} {name:<16} {seq_len_q:>3} queries", runs.device);
                    times.entry(series).or_default().push((seq_len_kv.into(), seconds));
                }
            });
        }
    }
    group.finish();
    println!("time of a selection ~ length^e, 8k to 1M keys");
    for (series, points) in times.iter().filter(|(_, points)| points.len() > 1) {
        let (first, last) = (points[0].1 * 1e3, points[points.len() - 1].1 * 1e3);
        println!("{series}: e = {:5.2} ({first:.3} ms to {last:.3} ms)", exponent(points));
    }
}

criterion_group!(benches, select);
criterion_main!(benches);
