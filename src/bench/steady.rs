//! Whether clocks were steady around a case.

use serde::{Deserialize, Serialize};

use super::{CaseResult, Part, QUIET};

/// Rates of a short fixed piece of arithmetic around the timings of a case, operations a second: they follow the device's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clocks {
    /// Before the first timing, after warming up.
    pub before: f64,
    /// After the last.
    pub after: f64,
}

impl Clocks {
    /// The relative rise of the rate after the timings; negative where it fell.
    #[must_use]
    pub fn change(&self) -> f64 {
        self.after / self.before - 1.0
    }

    /// Whether they changed by more than [`QUIET`].
    #[must_use]
    pub fn moved(&self) -> bool {
        self.change().abs() > QUIET
    }

    /// The difference between the fastest and the slowest rate, relative to the fastest; 0 without rates.
    pub(super) fn range(all: &[Self]) -> f64 {
        let rates = || all.iter().flat_map(|clocks| [clocks.before, clocks.after]);
        let fastest = rates().fold(0.0, f64::max);
        if fastest > 0.0 { 1.0 - rates().fold(f64::INFINITY, f64::min) / fastest } else { 0.0 }
    }
}

/// The tensors that a case was timed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Copies of q, k and v that calls take in turns, so that no call finds its own in a cache; 1: every call takes the same.
    pub sets: u32,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl core::fmt::Display for Rotation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.sets == 1 { f.write_str("the same") } else { write!(f, "{} in turns", self.sets) }
    }
}

impl CaseResult {
    /// Why a part's timing should not be trusted, if there is a reason: its samples disagree, or clocks changed.
    #[must_use]
    pub fn unsteady(&self, part: Part) -> Option<String> {
        let samples = self.part(part)?.samples.as_ref()?;
        if let Some(clocks) = self.clocks.filter(Clocks::moved) {
            return Some(format!("unsteady: clocks or load moved by {:+.0} %", 100.0 * clocks.change()));
        }
        (!samples.is_quiet()).then(|| format!("unsteady: {:.4} ms at best", 1e3 * samples.min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::bench::{Case, Counts, Outcome, PartResult, Samples, Series};

    #[test]
    fn timings_that_are_not_to_be_trusted_say_why() {
        let case = Case::dense(Series::Decode, [1, 1, 1, 8], 8, DType::F32);
        let timed = |seconds: &[f64], clocks| {
            let mut part = PartResult::without_result(Part::Dense, Outcome::Measured, Counts::default());
            part.samples = Some(Samples::new(seconds.to_vec(), 1));
            let result = CaseResult { clocks, parts: vec![part], ..CaseResult::new(&case, &case) };
            result.unsteady(Part::Dense)
        };
        assert_eq!(timed(&[1e-3; 5], None), None);
        assert_eq!(timed(&[1e-3; 5], Some(Clocks { before: 2.0, after: 1.95 })), None);
        assert_eq!(timed(&[2e-4, 1e-3, 1e-3, 1e-3, 1e-3], None).unwrap(), "unsteady: 0.2000 ms at best");
        let moved = timed(&[1e-3; 5], Some(Clocks { before: 2.0, after: 1.0 }));
        assert_eq!(moved.unwrap(), "unsteady: clocks or load moved by -50 %");
        assert_eq!(CaseResult::new(&case, &case).unsteady(Part::Dense), None);
    }
}
