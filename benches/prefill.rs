//! Many query rows: the CPU path, and every adapter's best tier, on the shapes of `benches/peers/ort.py` among others.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use wattn::bench::Series;

fn prefill(criterion: &mut Criterion) {
    common::bench_dense(criterion, Series::Prefill);
}

criterion_group!(benches, prefill);
criterion_main!(benches);
