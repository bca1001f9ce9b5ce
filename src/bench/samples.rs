//! What repeated timings amount to.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::Result;

/// Spread up to which a result counts as repeatable.
pub const QUIET: f64 = 0.05;

/// Seconds of one call, from samples that each span one call or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// Seconds of a call, in the order in which they were taken.
    pub seconds: Vec<f64>,
    /// Calls that each sample spans.
    pub calls: u32,
    /// The middle one.
    pub median: f64,
    /// The fastest, to which nothing else on the machine added.
    pub min: f64,
    /// Distance of the quartiles over the median: half of all samples lie within so much of each other.
    pub spread: f64,
}

impl Samples {
    /// Of at least one sample.
    #[must_use]
    pub fn new(seconds: Vec<f64>, calls: u32) -> Self {
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let (median, min) = (quantile(&sorted, 0.5), quantile(&sorted, 0.0));
        let quartiles = quantile(&sorted, 0.75) - quantile(&sorted, 0.25);
        let spread = if median > 0.0 { quartiles / median } else { 0.0 };
        Self { seconds, calls, median, min, spread }
    }
}

/// Seconds that a sample spans at the least, and that a part is run before any counts: clocks rise meanwhile.
const LEAST_SAMPLE: f64 = 0.005;
const WARM_UP: f64 = 0.05;

/// Rounds at the least, where calls are slow; else at the least; and at the most.
const ROUNDS: [usize; 3] = [3, 5, 60];

/// Calls of a sample at the most.
const MOST_CALLS: f64 = 1000.0;

/// Samples of parts that take turns, so that none has a machine's slow phases to itself; short calls are repeated within a
/// sample. `run` is given a part and a number of calls, and returns seconds for all of them.
///
/// # Errors
/// Those of `run`.
pub fn sample_in_turns(
    num_parts: usize,
    seconds: f64,
    mut run: impl FnMut(usize, u32) -> Result<f64>,
) -> Result<Vec<Samples>> {
    let mut calls = Vec::with_capacity(num_parts);
    for part in 0..num_parts {
        let begin = Instant::now();
        let mut of_one = run(part, 1)?;
        while begin.elapsed().as_secs_f64() < WARM_UP {
            of_one = run(part, 1)?;
        }
        // A time of 0 is that of a clock too coarse for one call.
        calls.push((LEAST_SAMPLE / of_one.max(1e-9)).ceil().clamp(1.0, MOST_CALLS) as u32);
    }
    let (begin, mut samples) = (Instant::now(), vec![Vec::new(); num_parts]);
    for round in 0..ROUNDS[2] {
        let elapsed = begin.elapsed().as_secs_f64();
        let enough = round >= ROUNDS[1] && elapsed >= seconds;
        if num_parts == 0 || enough || (round >= ROUNDS[0] && elapsed >= (2.0 * seconds).max(1.0)) {
            break;
        }
        for (part, samples) in samples.iter_mut().enumerate() {
            samples.push(run(part, calls[part])? / f64::from(calls[part]));
        }
    }
    Ok(samples.into_iter().zip(calls).map(|(seconds, calls)| Samples::new(seconds, calls)).collect())
}

/// Between the two nearest samples, linearly; 0 of none.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Whether the numbers of a report can be expected to come out again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Median of the spreads of all timings.
    pub spread: f64,
    /// Timings whose spread is larger than [`QUIET`], and timings in all.
    pub unsteady: [usize; 2],
    /// How much slower a first ceiling was when it was measured again at the end; negative: faster.
    pub drift: f64,
    /// Whether both are small.
    pub quiet: bool,
}

impl Noise {
    /// Of the spreads of all timings, and of the drift of the machine.
    #[must_use]
    pub fn new(mut spreads: Vec<f64>, drift: f64) -> Self {
        spreads.sort_by(f64::total_cmp);
        let spread = quantile(&spreads, 0.5);
        let unsteady = [spreads.iter().filter(|&&spread| spread > QUIET).count(), spreads.len()];
        let quiet = spread <= QUIET && drift.abs() <= QUIET;
        Self { spread, unsteady, drift, quiet }
    }
}

impl core::fmt::Display for Noise {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { spread, unsteady: [unsteady, all], drift, quiet } = self;
        let verdict = if *quiet {
            "quiet: another run should agree within 5 %"
        } else {
            "NOISY: do not compare numbers of this run, the machine was busy or its clocks moved"
        };
        write!(
            f,
            "{verdict} (median spread {:.1} %, {unsteady} of {all} timings above 5 %, drift {:+.1} %)",
            100.0 * spread,
            100.0 * drift
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn short_calls_are_repeated_and_parts_take_turns() {
        let mut order = Vec::new();
        let samples = sample_in_turns(2, 0.0, |part, calls| {
            order.push(part);
            Ok(f64::from(calls) * [1e-3, 1.0][part])
        })
        .unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].calls, samples[1].calls), (5, 1));
        assert_eq!(samples[0].seconds.len(), ROUNDS[1]);
        assert!((samples[0].median - 1e-3).abs() < 1e-9 && samples[1].median == 1.0);
        let measured = &order[order.len() - 2 * ROUNDS[1]..];
        assert!(measured.chunks(2).all(|round| round == [0, 1]), "{measured:?}");
        assert!(sample_in_turns(0, 1.0, |_, _| Ok(1.0)).unwrap().is_empty());
        let lost = || Error::DeviceLost { message: "gone".to_owned() };
        assert!(sample_in_turns(1, 0.0, |_, _| Err(lost())).is_err());
    }

    #[test]
    fn the_middle_the_fastest_and_the_spread() {
        let samples = Samples::new(vec![4.0, 1.0, 2.0, 3.0, 5.0], 7);
        assert_eq!((samples.median, samples.min, samples.calls), (3.0, 1.0, 7));
        assert!((samples.spread - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(samples.seconds[0], 4.0);
        // One slow sample of many moves neither.
        let mut seconds = vec![1.0; 20];
        seconds.push(50.0);
        let samples = Samples::new(seconds, 1);
        assert_eq!((samples.median, samples.spread), (1.0, 0.0));
        let one = Samples::new(vec![2.5], 1);
        assert_eq!((one.median, one.min, one.spread), (2.5, 2.5, 0.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.5), 1.5);
    }

    #[test]
    fn noise_is_spread_or_drift() {
        assert!(Noise::new(vec![0.01, 0.02, 0.4], 0.02).quiet);
        let spread = Noise::new(vec![0.01, 0.2, 0.4], 0.0);
        assert!(!spread.quiet && spread.unsteady == [2, 3]);
        assert!(spread.to_string().starts_with("NOISY"), "{spread}");
        assert!(!Noise::new(vec![0.01], -0.2).quiet);
        assert!(Noise::new(Vec::new(), 0.0).to_string().starts_with("quiet"));
    }
}
