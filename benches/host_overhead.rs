//! Host time of planning one call of decoding, and of encoding it. No GPU time is in these numbers.

mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use wattn::bench::{Part, Series, Target};
use wattn::{AttentionPlan, DeviceCaps};

fn host_overhead(criterion: &mut Criterion) {
    let case = common::cases_of(&[Series::Decode]).remove(0);
    let mut group = criterion.benchmark_group("host_overhead");
    group.bench_function("plan", |bencher| {
        bencher.iter(|| AttentionPlan::new(black_box(case.problem()), &DeviceCaps::BASELINE));
    });
    let targets = common::targets();
    let gpu = targets.iter().find(|(_, target)| matches!(target, Target::Gpu(_)));
    let (_, target) = gpu.expect("a GPU adapter, a software one will do");
    let mut runner = common::runner(target, &case);
    group.bench_function("encode", |bencher| {
        bencher.iter_custom(|calls| {
            let mut encode = || runner.encode_seconds(Part::Dense).expect("the device works").unwrap_or_default();
            Duration::from_secs_f64((0..calls).map(|_| encode()).sum())
        });
    });
    group.finish();
}

criterion_group!(benches, host_overhead);
criterion_main!(benches);
