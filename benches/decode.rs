//! One query row against many keys: the CPU path, and every adapter's best tier.

mod common;

use common::Case;
use criterion::{Criterion, criterion_group, criterion_main};

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(10);
    let contexts = common::contexts();
    for case in [Case(8, 1, 4096, 128), Case(8, 1, 16384, 128)] {
        common::bench_cpu(&mut group, case);
        for ctx in &contexts {
            common::bench_gpu(&mut group, ctx, case);
        }
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
