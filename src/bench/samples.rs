//! Statistics of repeated timings.

use std::cell::RefCell;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::steady::Clocks;
use super::warm_up::{WarmUp, warm_up};
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
    /// The fastest, which other work on the machine disturbed least.
    pub min: f64,
    /// Interquartile range over the median: half of all samples lie within this fraction of each other.
    pub spread: f64,
}

impl Samples {
    /// The statistics of at least one sample.
    #[must_use]
    pub fn new(seconds: Vec<f64>, calls: u32) -> Self {
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let (median, min) = (quantile(&sorted, 0.5), quantile(&sorted, 0.0));
        let quartiles = quantile(&sorted, 0.75) - quantile(&sorted, 0.25);
        let spread = if median > 0.0 { quartiles / median } else { 0.0 };
        Self { seconds, calls, median, min, spread }
    }

    /// Differences below this mean nothing: the spread, or the distance of the median from the best where that is larger, for example when
    /// half of the samples were taken at other clocks.
    #[must_use]
    pub fn noise(&self) -> f64 {
        let gap = if self.median > 0.0 { (self.median - self.min) / self.median } else { 0.0 };
        self.spread.max(gap)
    }

    /// Whether another run should agree within [`QUIET`].
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.noise() <= QUIET
    }
}

/// Fewest rounds where calls are slow; fewest rounds otherwise; most rounds.
const ROUNDS: [usize; 3] = [3, 5, 60];

/// Parts that can be timed.
pub(crate) trait Meter {
    /// Runs a part `calls` times; returns the seconds for all of them.
    fn run(&mut self, part: usize, calls: u32) -> Result<f64>;
    /// Seconds on any clock.
    fn now(&self) -> f64;
    /// The time that a part must run before it counts, at this moment.
    fn warm_up(&self) -> WarmUp;
}

/// Runs parts one after the other until the rate of each holds. Returns the calls of a sample for each.
pub(crate) fn warm_parts(meter: &mut dyn Meter, num_parts: usize) -> Result<Vec<u32>> {
    let mut calls = Vec::with_capacity(num_parts);
    for part in 0..num_parts {
        let (rules, meter) = (meter.warm_up(), RefCell::new(&mut *meter));
        let warm = warm_up(rules, || meter.borrow().now(), |calls| meter.borrow_mut().run(part, calls))?;
        calls.push(warm.calls);
    }
    Ok(calls)
}

/// Samples of warm parts that take turns.
pub(crate) fn sample_rounds(meter: &mut dyn Meter, calls: &[u32], seconds: f64) -> Result<Vec<Samples>> {
    let (begin, mut samples) = (meter.now(), vec![Vec::new(); calls.len()]);
    for round in 0..ROUNDS[2] {
        let elapsed = meter.now() - begin;
        let enough = round >= ROUNDS[1] && elapsed >= seconds;
        if calls.is_empty() || enough || (round >= ROUNDS[0] && elapsed >= (2.0 * seconds).max(1.0)) {
            break;
        }
        for (part, samples) in samples.iter_mut().enumerate() {
            samples.push(meter.run(part, calls[part])? / f64::from(calls[part]));
        }
    }
    Ok(samples.into_iter().zip(calls).map(|(seconds, &calls)| Samples::new(seconds, calls)).collect())
}

/// Samples of parts taken in turns, so that slow phases of the machine hit all of them, after each part has run until its rate holds;
/// short calls are repeated within a sample. `run` gets a part and a number of calls, and returns the seconds for all of them.
///
/// # Errors
/// The errors of `run`.
pub fn sample_in_turns(
    num_parts: usize,
    seconds: f64,
    warm_up: WarmUp,
    run: impl FnMut(usize, u32) -> Result<f64>,
) -> Result<Vec<Samples>> {
    struct OnHost<F>(F, WarmUp, Instant);
    impl<F: FnMut(usize, u32) -> Result<f64>> Meter for OnHost<F> {
        fn run(&mut self, part: usize, calls: u32) -> Result<f64> {
            self.0(part, calls)
        }

        fn now(&self) -> f64 {
            self.2.elapsed().as_secs_f64()
        }

        fn warm_up(&self) -> WarmUp {
            self.1
        }
    }
    let mut meter = OnHost(run, warm_up, Instant::now());
    let calls = warm_parts(&mut meter, num_parts)?;
    sample_rounds(&mut meter, &calls, seconds)
}

/// Between the two nearest samples, linearly; 0 without samples.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Whether the numbers of a report are repeatable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Median of the spreads of all timings.
    pub spread: f64,
    /// Timings that are not quiet, by [`Samples::is_quiet`], and timings in all.
    pub unsteady: [usize; 2],
    /// How much slower a ceiling was at the end of the run, for the ceiling that changed most; negative: faster.
    pub drift: f64,
    /// How much slower the clock was at its slowest than at its fastest, around any case: see [`Clocks`].
    #[serde(default)]
    pub clocks: f64,
    /// Whether all of them are small; single timings may still be unsteady.
    pub quiet: bool,
}

impl Noise {
    /// The noise of all timings, of the ceilings and of the clocks.
    #[must_use]
    pub fn new(timings: &[&Samples], drift: f64, clocks: &[Clocks]) -> Self {
        let median = |of: fn(&Samples) -> f64| {
            let mut sorted: Vec<f64> = timings.iter().map(|samples| of(samples)).collect();
            sorted.sort_by(f64::total_cmp);
            quantile(&sorted, 0.5)
        };
        let unsteady = [timings.iter().filter(|samples| !samples.is_quiet()).count(), timings.len()];
        let clocks = Clocks::range(clocks);
        let quiet = median(Samples::noise) <= QUIET && drift.abs() <= QUIET && clocks <= QUIET;
        Self { spread: median(|samples| samples.spread), unsteady, drift, clocks, quiet }
    }
}

impl core::fmt::Display for Noise {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { spread, unsteady: [unsteady, all], drift, clocks, quiet } = self;
        let verdict = match (quiet, unsteady) {
            (true, 0) => "quiet: another run should agree within 5 %",
            (true, _) => "quiet: another run should agree within 5 %, but for the timings that are marked",
            (false, _) => "NOISY: do not compare numbers of this run, the machine was busy or its clocks moved",
        };
        write!(
            f,
            "{verdict} (median spread {:.1} %, {unsteady} of {all} timings unsteady, ceilings {:+.1} %, clocks within {:.1} %)",
            100.0 * spread,
            100.0 * drift,
            100.0 * clocks
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::bench::warm_up::tests::Sleepy;

    #[test]
    fn short_calls_are_repeated_and_parts_take_turns() {
        let mut order = Vec::new();
        let samples = sample_in_turns(2, 0.0, WarmUp::PROCESSOR, |part, calls| {
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
        let none = sample_in_turns(0, 1.0, WarmUp::PROCESSOR, |_, _| Ok(1.0));
        assert!(none.unwrap().is_empty());
        let lost = || Error::DeviceLost { message: "gone".to_owned() };
        assert!(sample_in_turns(1, 0.0, WarmUp::PROCESSOR, |_, _| Err(lost())).is_err());
    }

    /// Two parts on a device that sleeps, as the suite times them.
    struct OnSleepy(Sleepy, WarmUp);

    impl Meter for OnSleepy {
        fn run(&mut self, part: usize, calls: u32) -> Result<f64> {
            Ok(self.0.work(f64::from(calls) * [2e-4, 3e-3][part]))
        }

        fn now(&self) -> f64 {
            self.0.now()
        }

        fn warm_up(&self) -> WarmUp {
            self.1
        }
    }

    #[test]
    fn samples_are_those_of_a_device_that_is_awake() {
        let mut meter = OnSleepy(Sleepy::asleep(), WarmUp::HARDWARE);
        let calls = warm_parts(&mut meter, 2).unwrap();
        let samples = sample_rounds(&mut meter, &calls, 0.2).unwrap();
        for (samples, of_call) in samples.iter().zip([2e-4, 3e-3]) {
            assert!((samples.median / of_call - 1.0).abs() < 1e-6 && samples.is_quiet(), "{samples:?}");
        }
        // Earlier work: both parts for 50 ms, whatever their rate.
        let mut meter = OnSleepy(Sleepy::asleep(), WarmUp::PROCESSOR);
        let calls = warm_parts(&mut meter, 2).unwrap();
        let samples = sample_rounds(&mut meter, &calls, 0.2).unwrap();
        assert!(samples.iter().zip([2e-4, 3e-3]).all(|(samples, of_call)| samples.median > 1.5 * of_call));
        assert!(samples.iter().all(|samples| !samples.is_quiet()), "{samples:?}");
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
    fn two_clocks_are_not_quiet_even_where_the_spread_is_small() {
        // Best and median of one decode case on an H100.
        let mut seconds = vec![0.65e-3; 18];
        seconds.extend([0.21e-3; 2]);
        let samples = Samples::new(seconds, 1);
        assert!(samples.spread == 0.0 && samples.noise() > 0.6 && !samples.is_quiet());
        assert!(Samples::new(vec![1.0, 1.01, 1.02, 1.03], 1).is_quiet());
    }

    #[test]
    fn noise_is_spread_or_drift_or_clocks() {
        let timing = |spread: f64| Samples { spread, ..Samples::new(vec![1.0], 1) };
        let noise = |spreads: &[f64], drift, clocks: &[Clocks]| {
            let timings: Vec<Samples> = spreads.iter().map(|&spread| timing(spread)).collect();
            Noise::new(&timings.iter().collect::<Vec<_>>(), drift, clocks)
        };
        let marked = noise(&[0.01, 0.02, 0.4], 0.02, &[]);
        assert!(marked.quiet && marked.to_string().contains("but for the timings that are marked"), "{marked}");
        let spread = noise(&[0.01, 0.2, 0.4], 0.0, &[]);
        assert!(!spread.quiet && spread.unsteady == [2, 3]);
        assert!(spread.to_string().starts_with("NOISY"), "{spread}");
        assert!(!noise(&[0.01], -0.2, &[]).quiet);
        let steady = Clocks { before: 1.0, after: 0.99 };
        assert!(noise(&[0.01], 0.0, &[steady, steady]).quiet);
        // Between two cases, too.
        let slower = Clocks { before: 0.7, after: 0.7 };
        let moved = noise(&[0.01], 0.0, &[steady, slower]);
        assert!(!moved.quiet && (moved.clocks - 0.3).abs() < 1e-12, "{moved}");
        assert!(noise(&[], 0.0, &[]).to_string().starts_with("quiet"));
    }
}
