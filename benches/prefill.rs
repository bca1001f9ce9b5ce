//! Many query rows: the CPU path, and every adapter's best tier, on the shapes of `benches/peers/ort.py`.

mod common;

use common::Case;
use criterion::{Criterion, criterion_group, criterion_main};

fn prefill(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prefill");
    group.sample_size(10);
    let contexts = common::contexts();
    for case in [Case(8, 1024, 1024, 64), Case(4, 2048, 2048, 128), Case(2, 4096, 4096, 128)] {
        common::bench_cpu(&mut group, case);
        for ctx in &contexts {
            common::bench_gpu(&mut group, ctx, case);
        }
    }
    group.finish();
}

criterion_group!(benches, prefill);
criterion_main!(benches);
