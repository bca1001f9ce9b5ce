//! The rates that a machine can reach at most, measured, to compare cases with.

mod cpu;
mod gpu;

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::BenchResult;
use super::clock::Clock;
use super::warm_up::{WarmUp, warm_up};

pub(super) use cpu::reference as cpu_reference;
pub(super) use gpu::stamps_for;
pub use gpu::verify_kernel;

/// The quantity of a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CeilingKind {
    /// Bytes read and written by a copy, a second.
    Copy,
    /// f32 operations a second in vector registers.
    F32,
    /// f16 operations a second in vector registers.
    F16,
    /// Operations a second of f16 products into f32 on matrix units.
    Matrix,
}

impl CeilingKind {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Matrix => "matrix",
        }
    }

    /// The unit.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Copy => "GB/s",
            _ => "GFLOP/s",
        }
    }
}

/// One ceiling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Its quantity.
    pub kind: CeilingKind,
    /// The best rate in the whole run, a second; `None` where it could not be measured.
    pub rate: Option<f64>,
    /// The way in which it was measured, or the reason why it was not.
    pub note: String,
    /// The rate before the cases.
    #[serde(default)]
    pub first: Option<f64>,
    /// The rate after them, once the run is complete.
    #[serde(default)]
    pub again: Option<f64>,
    /// The part of a case that was faster than both, and so became the ceiling, as `case: part`.
    #[serde(default)]
    pub reached_by: Option<String>,
}

impl Ceiling {
    pub(super) fn new(kind: CeilingKind, rate: Option<f64>, note: impl Into<String>) -> Self {
        Self { kind, rate, note: note.into(), first: rate, again: None, reached_by: None }
    }

    /// Raises it to the best rate of a part, if that is higher.
    pub(super) fn reach(&mut self, rate: f64, by: impl FnOnce() -> String) {
        if self.rate.is_some_and(|known| rate.is_finite() && rate > known) {
            (self.rate, self.reached_by) = (Some(rate), Some(by()));
        }
    }

    /// Adds the rate after the cases.
    pub(super) fn measured_again(&mut self, again: Option<f64>) {
        self.again = again;
        if let (Some(known), Some(again)) = (self.rate, again)
            && again > known
        {
            (self.rate, self.reached_by) = (Some(again), None);
        }
    }

    /// The relative fall of the rate at the end; negative where it rose.
    #[must_use]
    pub fn drift(&self) -> Option<f64> {
        Some(self.first? / self.again? - 1.0)
    }
}

/// Number of runs of a ceiling: while its work still grows, and after that. The best counts.
const GROWING_RUNS: usize = 3;
const RUNS: usize = 7;

/// Least seconds of a run, so that its beginning and end do not matter.
const LEAST_SECONDS: f64 = 0.01;

/// [`best_run_of`] on a device with nothing else on it.
fn best_run<E>(clock: &Clock, first: u32, most: u32, run: impl FnMut(u32) -> Result<f64, E>) -> Result<(u32, f64), E> {
    let _quiet = clock.quiet();
    best_run_of([first, most], clock.warm_up(), || clock.now(), run)
}

/// The same on the CPU.
fn best_run_on_cpu<E>(first: u32, most: u32, run: impl FnMut(u32) -> Result<f64, E>) -> Result<(u32, f64), E> {
    let begin = Instant::now();
    best_run_of([first, most], WarmUp::PROCESSOR, || begin.elapsed().as_secs_f64(), run)
}

/// Increases the work until runs take long enough: all of several, since a first run may wait for a compiler, and other programs may slow
/// down any. Work at most doubles from run to run, so that none takes longer than a few times [`LEAST_SECONDS`]. Then repeats runs until
/// their rate holds, which may make them shorter again. Returns the work and the best run.
fn best_run_of<E>(
    [first, most]: [u32; 2],
    rules: WarmUp,
    now: impl Fn() -> f64,
    mut run: impl FnMut(u32) -> Result<f64, E>,
) -> Result<(u32, f64), E> {
    let mut work = first.min(most);
    let grow = |mut work: u32, run: &mut dyn FnMut(u32) -> Result<f64, E>| loop {
        let longest = (0..GROWING_RUNS).try_fold(f64::INFINITY, |best, _| Ok(run(work)?.min(best)))?;
        if longest >= LEAST_SECONDS || work >= most {
            return Ok(work);
        }
        work = work.saturating_mul(2).min(most);
    };
    work = grow(work, &mut run)?;
    warm_up(rules, now, |runs| (0..runs).try_fold(0.0, |seconds, _| Ok(seconds + run(work)?)))?;
    work = grow(work, &mut run)?;
    let best = (0..RUNS).try_fold(f64::INFINITY, |best, _| Ok(run(work)?.min(best)))?;
    Ok((work, best))
}

/// All ceilings of a machine: of the clock's device, or of the CPU.
pub(super) fn measure(clock: Option<&Clock>) -> BenchResult<Vec<Ceiling>> {
    clock.map_or_else(cpu::measure, gpu::measure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::warm_up::tests::Sleepy;

    fn best<E>(first: u32, most: u32, run: impl FnMut(u32) -> Result<f64, E>) -> Result<(u32, f64), E> {
        best_run_of([first, most], WarmUp::PROCESSOR, || 0.0, run)
    }

    #[test]
    fn work_grows_until_a_run_is_long_enough() {
        let seconds = |work: u32| Ok::<_, ()>(f64::from(work) * 1e-3);
        assert_eq!(best(1, 1024, seconds), Ok((16, 0.016)));
        assert_eq!(best(1, 4, seconds), Ok((4, 0.004)));
        assert_eq!(best(64, 32, seconds), Ok((32, 0.032)));
        assert_eq!(best(1, 8, |_| Err(())), Err(()));
        // A slow first run does not mean enough work.
        let mut runs = 0;
        let slow_at_first = |work: u32| {
            runs += 1;
            Ok::<_, ()>(if runs == 1 { 1.0 } else { f64::from(work) * 1e-3 })
        };
        assert_eq!(best(1, 1024, slow_at_first), Ok((16, 0.016)));
    }

    #[test]
    fn a_ceiling_is_that_of_a_device_that_is_awake() {
        let device = Sleepy::asleep();
        let run = |work: u32| Ok::<_, ()>(device.work(f64::from(work) * 1e-3));
        let (work, seconds) = best_run_of([1, 1024], WarmUp::HARDWARE, || device.now(), run).unwrap();
        assert!(seconds >= LEAST_SECONDS && (seconds / f64::from(work) - 1e-3).abs() < 1e-9, "{work}: {seconds}");
        // Without a warm-up it would be a quarter of that.
        let device = Sleepy::asleep();
        let run = |work: u32| Ok::<_, ()>(device.work(f64::from(work) * 1e-3));
        let (work, seconds) = best_run_of([1, 1024], WarmUp::PROCESSOR, || device.now(), run).unwrap();
        assert!(seconds / f64::from(work) > 2e-3, "{work}: {seconds}");
    }

    #[test]
    fn no_ceiling_is_below_what_was_reached() {
        let mut ceiling = Ceiling::new(CeilingKind::F32, Some(10.0), "x");
        ceiling.reach(9.0, || "slower".to_owned());
        assert_eq!((ceiling.rate, &ceiling.reached_by), (Some(10.0), &None));
        ceiling.reach(12.0, || "faster".to_owned());
        ceiling.reach(f64::INFINITY, || "no time at all".to_owned());
        assert_eq!((ceiling.rate, ceiling.reached_by.as_deref()), (Some(12.0), Some("faster")));
        ceiling.measured_again(Some(8.0));
        assert_eq!((ceiling.rate, ceiling.first, ceiling.again), (Some(12.0), Some(10.0), Some(8.0)));
        assert_eq!(ceiling.drift(), Some(0.25));
        ceiling.measured_again(Some(13.0));
        assert_eq!((ceiling.rate, ceiling.reached_by), (Some(13.0), None));
        // A ceiling that cannot be measured stays unmeasured.
        let mut none = Ceiling::new(CeilingKind::Matrix, None, "x");
        none.reach(1.0, || "nobody".to_owned());
        none.measured_again(None);
        assert_eq!((none.rate, none.reached_by.clone(), none.drift()), (None, None, None));
    }
}
