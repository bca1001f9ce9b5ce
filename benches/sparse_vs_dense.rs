//! Selection and block-sparse attention against our own dense attention on the same device, in one run: the ratios that the project
//! promises, and the length where both take equally long.
//!
//! `cargo bench --bench sparse_vs_dense`
//!
//! Results are checked against the f64 oracle before anything is timed. The table has the medians of some rounds that each
//! run all parts of a case; criterion's numbers are those of selection and attention together. Inputs are independent
//! numbers, so that selected blocks lie scattered: the hardest case for memory.

mod common;

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use wattn::bench::{Part, Runner, Series, Target, WarmUp, sample_in_turns};

/// Ratios that a case must reach: with a selection at every step, and with lists from an earlier step.
const WANTED: [(&str, Option<f64>, Option<f64>); 9] = [
    ("sparse-prefill/hip-2x1024x131072x128", Some(9.0), None),
    ("sparse-decode/hip-2x1x131072x128", Some(10.0), Some(30.0)),
    ("sparse-decode/infinite-hip-2-1x1x1048576x128", None, Some(19.85)),
    ("sparse-prefill/infinite-hip-2-1x256x1048576x128", Some(20.29), None),
    ("sparse-decode/hip-list-per-kv-head-4-1x1x131072x128", Some(10.0), Some(30.0)),
    ("sparse-prefill/hip-2x1024x8192x128", Some(1.0), None),
    ("sparse-decode/hip-2x1x8192x128", Some(1.0), None),
    ("sparse-prefill/infinite-hip-2-1x1024x8192x128", Some(1.0), None),
    ("sparse-decode/infinite-hip-2-1x1x8192x128", Some(1.0), None),
];

/// Seconds for the rounds of a case.
const SECONDS: f64 = 3.0;

/// One case on one device.
struct Line {
    device: String,
    name: String,
    /// The case as requested.
    id: String,
    /// Seconds of the parts that the case has.
    times: Vec<(Part, f64)>,
}

impl Line {
    fn seconds(&self, part: Part) -> Option<f64> {
        self.times.iter().find(|(of, _)| *of == part).map(|(_, seconds)| *seconds)
    }
}

/// Times one case on one device; `None` when the filter leaves it out.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    (device, target): &(String, Target),
    runner: &mut Runner,
    id: String,
) -> Option<Line> {
    common::bench(group, device, runner, Part::Sparse)?;
    let parts = runner.case().parts();
    parts.iter().for_each(|&part| common::check(runner, part));
    let warm_up = WarmUp::of(target);
    let samples = sample_in_turns(parts.len(), SECONDS, warm_up, |at, calls| Ok(runner.run(parts[at], calls)?.wall));
    let samples = samples.expect("the device works");
    let times = parts.iter().copied().zip(samples.iter().map(|samples| samples.median)).collect();
    Some(Line { device: device.clone(), name: runner.case().name().to_owned(), id, times })
}

fn print_table(lines: &[Line]) {
    println!(
        "\nmilliseconds, and dense attention's time over: selection and attention, attention alone, a step of the cycle"
    );
    print!("{:<10} {:<42}", "device", "case");
    ["dense", "select", "attend", "total", "step"].iter().for_each(|column| print!(" {column:>9}"));
    ["total", "cached", "step"].iter().for_each(|ratio| print!(" {ratio:>15}"));
    println!();
    for line in lines {
        print!("{:<10} {:<42}", line.device, line.name);
        for part in [Part::Dense, Part::Select, Part::Attend, Part::Sparse, Part::Step] {
            print!(
                " {:>9}",
                line.seconds(part).map_or_else(|| "-".to_owned(), |seconds| format!("{:.3}", 1e3 * seconds))
            );
        }
        let wanted = WANTED.iter().find(|(id, ..)| *id == line.id);
        let [total, cached] = [wanted.and_then(|wanted| wanted.1), wanted.and_then(|wanted| wanted.2)];
        for (part, wanted) in [(Part::Sparse, total), (Part::Attend, cached), (Part::Step, None)] {
            let ratio = line.seconds(Part::Dense).zip(line.seconds(part)).map(|(dense, seconds)| dense / seconds);
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let wanted = wanted.map_or(String::new(), |wanted| format!("({wanted})"));
            print!(" {ratio:>7} {wanted:<7}");
        }
        println!();
    }
}

fn sparse_vs_dense(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sparse_vs_dense");
    common::settings(&mut group);
    let targets = common::targets();
    let cases = common::cases_of(&[Series::SparsePrefill, Series::SparseDecode]);
    let unknown = WANTED.iter().find(|(id, ..)| cases.iter().all(|case| case.id() != *id));
    assert!(unknown.is_none(), "no such case: {unknown:?}");
    let mut lines = Vec::new();
    for case in cases {
        for device in &targets {
            lines.extend(measure(&mut group, device, &mut common::runner(&device.1, &case), case.id()));
        }
    }
    group.finish();
    print_table(&lines);
}

criterion_group!(benches, sparse_vs_dense);
criterion_main!(benches);
