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
    // By device, method and queries, and the number of the method: (keys, seconds).
    let mut times: BTreeMap<(String, usize), Vec<(f64, f64)>> = BTreeMap::new();
    let methods: [(&str, u32, SelectionMethod); 4] = [
        ("HiP", 64, Hip::default().into()),
        ("HiP", 1, Hip { refresh_interval: 1, ..Hip::decode() }.into()),
        ("InfiniteHiP 3K", 64, Preset::ThreeK.into()),
        ("InfiniteHiP 3K", 1, Preset::ThreeK.into()),
    ];
    for (number, (name, seq_len_q, method)) in methods.iter().enumerate() {
        for seq_len_kv in (13..=20).map(|log2| 1u32 << log2) {
            let case = SparseCase::new(name, [1, 1, *seq_len_q, seq_len_kv], method.clone());
            on_each_device(&case, &contexts, |mut runs, _| {
                let label = format!("{}/{}", runs.device, runs.case.name);
                if let Some(seconds) = time(&mut group, &label, || (runs.select)(0)) {
                    let series = format!("{:<12} {name:<16} {seq_len_q:>3} queries", runs.device);
                    times.entry((series, number)).or_default().push((seq_len_kv.into(), seconds));
                }
            });
        }
    }
    group.finish();
    println!("time of a selection ~ length^e; in brackets that of the keys it looks at");
    for ((series, method), points) in times.iter().filter(|(_, points)| points.len() > 1) {
        let method = &methods[*method].2;
        let looked_at: Vec<(f64, f64)> = points.iter().map(|&(keys, _)| (keys, num_probes(method, keys))).collect();
        let ((from, first), (to, last)) = (points[0], points[points.len() - 1]);
        print!("{series}: e = {:.2} ({:.2}), ", exponent(points), exponent(&looked_at));
        println!("{from} keys {:.3} ms, {to} keys {:.3} ms", first * 1e3, last * 1e3);
    }
}

/// Representatives that a search compares with a query block (specification 1.9, 3.3), where there is more than fits.
fn num_probes(method: &SelectionMethod, keys: f64) -> f64 {
    match method {
        SelectionMethod::Hip(hip) => {
            let candidates = keys - f64::from(hip.sink_size + hip.window_size);
            f64::from(2 * hip.max_blocks()) * (candidates / f64::from(hip.top_k)).log2().ceil()
        }
        SelectionMethod::InfiniteHip(method) => {
            let mut entering = keys;
            let mut probes = 0.0;
            for stage in &method.stages {
                // A stage that keeps all scores none.
                if entering > f64::from(stage.keep) {
                    probes += entering / f64::from(stage.chunk_size) * 2.0 * f64::from(stage.chunk_size).log2();
                    entering = stage.keep.into();
                }
            }
            probes
        }
        other => panic!("no cost is known of {other:?}"),
    }
}

criterion_group!(benches, select);
criterion_main!(benches);
