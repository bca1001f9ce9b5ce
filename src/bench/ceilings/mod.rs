//! What a machine can do at the most: the rates that the cases are compared with, measured, not looked up.

mod cpu;
mod gpu;

use serde::{Deserialize, Serialize};

use super::clock::Stamps;
use super::{BenchResult, Target};

pub(super) use gpu::stamps_for;
pub use gpu::verify_kernel;

/// What a ceiling is of.
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

    /// What is counted.
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
    /// What it is of.
    pub kind: CeilingKind,
    /// The best rate that was seen, a second; none where it could not be measured.
    pub rate: Option<f64>,
    /// How it was measured, or why not.
    pub note: String,
}

/// Runs of a ceiling, of which the best counts; while its work still grows, and then.
const GROWING_RUNS: usize = 3;
const RUNS: usize = 7;

/// Seconds that a run should last at the least, so that its beginning and end do not count.
const LEAST_SECONDS: f64 = 0.01;

/// A larger amount of work, until runs take long enough: all of a few, since a first run may wait for a compiler, and any for
/// others on the machine. Work doubles at most from run to run, so that none takes longer than a few times
/// [`LEAST_SECONDS`]. Returns the work and the best of its runs.
fn best_run<E>(first: u32, most: u32, mut run: impl FnMut(u32) -> Result<f64, E>) -> Result<(u32, f64), E> {
    let mut best_of = |runs: usize, work: u32| (0..runs).try_fold(f64::INFINITY, |best, _| Ok(run(work)?.min(best)));
    let mut work = first.min(most);
    while best_of(GROWING_RUNS, work)? < LEAST_SECONDS && work < most {
        work = work.saturating_mul(2).min(most);
    }
    Ok((work, best_of(RUNS, work)?))
}

/// All ceilings of a machine.
pub(super) fn measure(target: &Target, stamps: Stamps) -> BenchResult<Vec<Ceiling>> {
    match target {
        Target::Cpu => cpu::measure(),
        Target::Gpu { context, .. } => gpu::measure(context, stamps),
    }
}

/// The copy alone, for a second look at the machine.
pub(super) fn measure_copy(target: &Target, stamps: Stamps) -> BenchResult<Ceiling> {
    match target {
        Target::Cpu => Ok(cpu::copy()),
        Target::Gpu { context, .. } => gpu::copy(context, stamps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_grows_until_a_run_is_long_enough() {
        let seconds = |work: u32| Ok::<_, ()>(f64::from(work) * 1e-3);
        assert_eq!(best_run(1, 1024, seconds), Ok((16, 0.016)));
        assert_eq!(best_run(1, 4, seconds), Ok((4, 0.004)));
        assert_eq!(best_run(64, 32, seconds), Ok((32, 0.032)));
        assert_eq!(best_run(1, 8, |_| Err(())), Err(()));
        // A slow first run is no sign of enough work.
        let mut runs = 0;
        let slow_at_first = |work: u32| {
            runs += 1;
            Ok::<_, ()>(if runs == 1 { 1.0 } else { f64::from(work) * 1e-3 })
        };
        assert_eq!(best_run(1, 1024, slow_at_first), Ok((16, 0.016)));
    }
}
