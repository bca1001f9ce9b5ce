//! Selection and block-sparse attention against our own dense attention on the same device, in one run: the ratios that
//! the project promises, and where both take equally long.
//!
//! `cargo bench --bench sparse_vs_dense`
//!
//! Rows are checked against the f64 oracle before anything is timed. The table has the fastest of some rounds that each
//! run all parts of a case; criterion's numbers are those of selection and attention together. Inputs are independent numbers,
//! so that selected blocks lie scattered: the hardest case for memory.

mod common;

use common::sparse::{Runs, SparseCase, interleaved, on_each_device, settings, time};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use std::time::Duration;
use wattn::{Granularity, Hip, HostInputs, Preset, SelectionMethod};

/// What the ratio of a case must reach.
#[derive(Clone, Copy)]
struct Wanted {
    /// With a selection every time.
    total: Option<f64>,
    /// With lists from an earlier step.
    cached: Option<f64>,
}

/// One case on one device.
struct Line {
    device: String,
    name: String,
    wanted: Wanted,
    /// Milliseconds: dense, selection, attention to its lists, both, a step of the cycle of refreshes.
    times: [f64; 5],
}

fn cases() -> Vec<(SparseCase, Wanted)> {
    let wanted = |total, cached| Wanted { total, cached };
    let none = wanted(None, None);
    let mut cases = vec![
        (SparseCase::new("HiP", [2, 2, 1024, 131_072], Hip::default()), wanted(Some(9.0), None)),
        (SparseCase::new("HiP", [2, 2, 1, 131_072], Hip::decode()), wanted(Some(10.0), Some(30.0))),
        (SparseCase::new("InfiniteHiP 3K", [2, 1, 1, 1 << 20], Preset::ThreeK), wanted(None, Some(19.85))),
        (SparseCase::new("InfiniteHiP 3K", [2, 1, 256, 1 << 20], Preset::ThreeK), wanted(Some(20.29), None)),
        // Dense attention reads the keys of a KV head once for all its query heads; lists of their own make them read apart.
        (SparseCase::new("HiP", [4, 1, 1, 131_072], Hip::decode()), none),
    ];
    let mut shared = SparseCase::new("HiP, list per KV head,", [4, 1, 1, 131_072], Hip::decode());
    shared.selection = shared.selection.granularity(Granularity::KvHead);
    cases.push((shared, wanted(Some(10.0), Some(30.0))));
    for seq_len_kv in [2048, 4096, 8192, 16_384] {
        let even = if seq_len_kv == 8192 { wanted(Some(1.0), None) } else { none };
        cases.push((SparseCase::new("HiP", [2, 2, 1024, seq_len_kv], Hip::default()), even));
        cases.push((SparseCase::new("HiP", [2, 2, 1, seq_len_kv], Hip::decode()), even));
        cases.push((SparseCase::new("InfiniteHiP 3K", [2, 1, 1024, seq_len_kv], Preset::ThreeK), even));
        cases.push((SparseCase::new("InfiniteHiP 3K", [2, 1, 1, seq_len_kv], Preset::ThreeK), even));
    }
    cases
}

/// Times one case on one device; `None` when the filter leaves it out.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runs: &mut Runs<'_>,
    inputs: &HostInputs<'_>,
    wanted: Wanted,
) -> Option<Line> {
    let (device, name) = (runs.device.clone(), runs.case.name.clone());
    let mut checked = false; // once, and not at all where the filter leaves the case out
    time(group, &format!("{device}/{name}"), || {
        if !checked {
            runs.check(inputs);
            checked = true;
        }
        (runs.both)(0)
    })?;
    let steps = match runs.case.selection.method() {
        _ if runs.case.selection.shape().seq_len_q > 1 => 1,
        SelectionMethod::Hip(hip) => hip.refresh_interval,
        SelectionMethod::InfiniteHip(method) => method.stages[0].refresh_interval,
        _ => 1,
    };
    let seconds = interleaved(|part| match part {
        0 => (runs.dense)(),
        1 => (runs.select)(0),
        2 => (runs.attend)(),
        3 => (runs.both)(0),
        _ => (0..steps.into()).map(|step| (runs.both)(step)).sum::<Duration>() / steps,
    });
    Some(Line { device, name, wanted, times: seconds.map(|seconds| 1e3 * seconds) })
}

fn print_table(lines: &[Line]) {
    println!(
        "\nmilliseconds, and dense attention's time over: selection and attention, attention alone, a step of the cycle"
    );
    print!("{:<10} {:<42}", "device", "case");
    ["dense", "select", "attend", "total", "step"].iter().for_each(|column| print!(" {column:>9}"));
    ["total", "cached", "step"].iter().for_each(|ratio| print!(" {ratio:>15}"));
    println!();
    for Line { device, name, wanted, times } in lines {
        print!("{device:<10} {name:<42}");
        times.iter().for_each(|ms| print!(" {ms:>9.3}"));
        let [dense, _, attend, total, step] = times;
        for (time, wanted) in [(total, wanted.total), (attend, wanted.cached), (step, None)] {
            let wanted = wanted.map_or(String::new(), |wanted| format!("({wanted})"));
            print!(" {:>7.2} {wanted:<7}", dense / time);
        }
        println!();
    }
}

fn sparse_vs_dense(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sparse_vs_dense");
    settings(&mut group);
    let contexts = common::contexts();
    let mut lines = Vec::new();
    for (case, wanted) in cases() {
        on_each_device(&case, &contexts, |mut runs, inputs| {
            lines.extend(measure(&mut group, &mut runs, inputs, wanted));
        });
    }
    group.finish();
    print_table(&lines);
}

criterion_group!(benches, sparse_vs_dense);
criterion_main!(benches);
