//! Selection alone against the length of the context, from 8k to 1M keys, for one block of 64 queries and for decoding:
//! the CPU path, and every adapter. Ends with the exponent of time against length.
//!
//! `cargo bench --bench select`
//!
//! The number of queries is fixed: HiP's cost grows with the logarithm of the length, InfiniteHiP's first stage with the
//! length itself, its others not at all (specification 1.9). A whole prompt has one power more.

mod common;

use std::collections::BTreeMap;

use criterion::{Criterion, criterion_group, criterion_main};
use wattn::bench::{Part, Series};

fn select(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("select");
    common::settings(&mut group);
    let targets = common::targets();
    // By device, method and queries: keys, operations of the search, seconds.
    let mut times: BTreeMap<String, Vec<[f64; 3]>> = BTreeMap::new();
    for case in common::cases_of(&[Series::Selection]) {
        for (device, target) in &targets {
            let mut runner = common::runner(target, &case);
            let Some(seconds) = common::bench(&mut group, device, &mut runner, Part::Select) else { continue };
            let shape = *runner.case().problem().shape();
            let method = case.name().rsplit_once('-').map_or("", |(method, _)| method);
            let series = format!("{device:<12} {method:<16} {:>3} queries", shape.seq_len_q);
            // For a width: narrower heads would look like a shorter search.
            let operations = runner.counts(Part::Select).operations as f64 / f64::from(shape.head_dim);
            times.entry(series).or_default().push([shape.seq_len_kv.into(), operations, seconds]);
        }
    }
    group.finish();
    println!("time of a selection ~ length^e; in brackets that of the keys it looks at");
    for (series, points) in times.iter().filter(|(_, points)| points.len() > 1) {
        let of = |axis: usize| exponent(&points.iter().map(|point| (point[0], point[axis])).collect::<Vec<_>>());
        let ([from, _, first], [to, _, last]) = (points[0], points[points.len() - 1]);
        print!("{series}: e = {:.2} ({:.2}), ", of(2), of(1));
        println!("{from} keys {:.3} ms, {to} keys {:.3} ms", first * 1e3, last * 1e3);
    }
}

/// The exponent `e` of `y ~ x^e`, by least squares of the logarithms.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(|(x, _)| x.ln()), mean(|(_, y)| y.ln()));
    let covariance: f64 = points.iter().map(|(x, y)| (x.ln() - mean_x) * (y.ln() - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x.ln() - mean_x).powi(2)).sum();
    covariance / variance
}

criterion_group!(benches, select);
criterion_main!(benches);
