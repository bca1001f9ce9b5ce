//! What the benches share: the devices, and the cases of `wattn::bench` under criterion.

#![allow(dead_code, unreachable_pub, reason = "each bench uses its own part")]

use std::time::Duration;

use criterion::{BenchmarkGroup, SamplingMode, Throughput, measurement::WallTime};
use wattn::bench::{Case, Part, Runner, Scope, Series, Target, cases};
use wattn::{Context, ContextOptions};

/// The targets of benches: the CPU, then the best tier of every adapter, software adapters included, or of the adapters that
/// `WATTN_TEST_ADAPTER` names.
pub fn targets() -> Vec<(String, Target)> {
    let wanted = std::env::var("WATTN_TEST_ADAPTER").unwrap_or_default().to_lowercase();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    let adapters = pollster::block_on(wattn::adapters(&instance));
    let mut names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    names.retain(|name| name.to_lowercase().contains(&wanted));
    names.dedup();
    let open = |name: &String| {
        let context =
            Context::request(&ContextOptions::default().with_adapter_name(name)).wait().expect("it was there");
        println!("{}", context.describe());
        (short_name(name), Target::Gpu(context))
    };
    [("cpu".to_owned(), Target::Cpu)].into_iter().chain(names.iter().map(open)).collect()
}

/// A short name for the benchmark's path: the adapter's first word.
fn short_name(adapter: &str) -> String {
    let name = adapter.to_lowercase();
    name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("gpu").to_owned()
}

/// The cases of some series.
pub fn cases_of(series: &[Series]) -> Vec<Case> {
    cases(Scope::Full).into_iter().filter(|case| series.contains(&case.series())).collect()
}

/// The case, compiled and bound, on a target; with narrower heads, which its name then says, where keys would not fit.
pub fn runner(target: &Target, case: &Case) -> Runner {
    let case = match target {
        Target::Cpu => case.clone(),
        Target::Gpu(context) => case.fitted(context.caps()),
    };
    Runner::new(target, &case).unwrap_or_else(|error| panic!("{}: {error}", case.id()))
}

/// Compares with the oracle.
pub fn check(runner: &mut Runner, part: Part) {
    let check = runner.check(part).unwrap_or_else(|error| panic!("{}: {error}", runner.case().id()));
    assert!(check.passed(), "{}, {}: {check:?}", runner.case().id(), part.name());
}

/// Runs a part `count` times, each from encoding to completion, the time that a caller sees who waits for every result.
pub fn run(runner: &mut Runner, part: Part, calls: u64) -> Duration {
    let mut once = || runner.run(part, 1).unwrap_or_else(|error| panic!("{}: {error}", part.name()));
    (0..calls).map(|_| Duration::from_secs_f64(once().wall)).sum()
}

/// Benchmarks one part, which is checked before it is timed, and not at all where the filter leaves it out. Returns its
/// fastest sample in seconds, to which nothing else on the machine added.
pub fn bench(group: &mut BenchmarkGroup<'_, WallTime>, device: &str, runner: &mut Runner, part: Part) -> Option<f64> {
    let (mut samples, mut checked) = (Vec::new(), false);
    group.throughput(Throughput::Elements(runner.counts(part).operations)); // criterion's "elem/s" are FLOP/s
    group.bench_function(format!("{device}/{}", runner.case().name()), |bencher| {
        if !checked {
            check(runner, part);
            checked = true;
        }
        bencher.iter_custom(|calls| {
            let total = run(runner, part, calls);
            samples.push(total.as_secs_f64() / calls as f64);
            total
        });
    });
    samples.into_iter().reduce(f64::min)
}

/// Settings for calls that take from microseconds to seconds.
pub fn settings(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
}

/// Every case of a series on every target, dense attention only. Cases whose calls take longer than a few seconds on the CPU are left to
/// `wattn bench`, which skips them by rule.
pub fn bench_dense(criterion: &mut criterion::Criterion, series: Series) {
    const MOST_OPERATIONS: u64 = 20_000_000_000;
    let mut group = criterion.benchmark_group(series.name());
    group.sample_size(10);
    let targets = targets();
    for case in cases_of(&[series]) {
        if wattn::bench::Counts::new(&case, Part::Dense, None).operations > MOST_OPERATIONS {
            continue;
        }
        for (device, target) in &targets {
            bench(&mut group, device, &mut runner(target, &case), Part::Dense);
        }
    }
    group.finish();
}
