//! The clock of a search.

use crate::bench::WarmUp;
use crate::bench::tools::Clock;

pub(super) trait Stopwatch {
    /// Seconds since the search began.
    fn now(&self) -> f64;
    /// For how long a candidate must run before its time counts, at this moment.
    fn warm_up(&self) -> WarmUp;
    /// Runs something while the device does nothing else.
    fn quietly<T>(&self, work: impl FnOnce() -> T) -> T;
}

impl Stopwatch for Clock {
    fn now(&self) -> f64 {
        Self::now(self)
    }

    fn warm_up(&self) -> WarmUp {
        Self::warm_up(self)
    }

    fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        let _quiet = self.quiet();
        work()
    }
}

/// A short time, for tests.
#[cfg(test)]
impl Stopwatch for f64 {
    fn now(&self) -> f64 {
        *self
    }

    fn warm_up(&self) -> WarmUp {
        WarmUp::PROCESSOR
    }

    fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        work()
    }
}
