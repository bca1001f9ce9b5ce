//! One query row against many keys: the CPU path, and every adapter's best tier.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use wattn::bench::Series;

fn decode(criterion: &mut Criterion) {
    common::bench_dense(criterion, Series::Decode);
}

criterion_group!(benches, decode);
criterion_main!(benches);
