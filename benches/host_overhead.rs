//! What the host pays: planning, binding, and encoding one call of decoding. No GPU time is in these numbers.

mod common;

use common::{Case, OnDevice, Tensors};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use wattn::{AttentionPlan, DeviceCaps};

fn host_overhead(criterion: &mut Criterion) {
    let problem = Case(8, 1, 4096, 128).problem();
    let mut group = criterion.benchmark_group("host_overhead");
    group.bench_function("plan", |bencher| {
        bencher.iter(|| AttentionPlan::new(black_box(&problem), &DeviceCaps::BASELINE));
    });
    let contexts = common::contexts();
    let ctx = contexts.first().expect("a GPU adapter, a software one will do");
    let plan = AttentionPlan::new(&problem, ctx.caps()).expect("the problem fits the device");
    let tensors = Tensors::random(problem.shape());
    let on_device = OnDevice::new(ctx, &plan, &tensors.inputs());
    group.bench_function("encode", |bencher| {
        bencher.iter_batched(
            || ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default()),
            |mut encoder| {
                on_device.bound.encode(&mut encoder);
                encoder
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, host_overhead);
criterion_main!(benches);
