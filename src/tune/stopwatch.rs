//! The clock that a search goes by.

use crate::bench::WarmUp;
use crate::bench::tools::Clock;

pub(super) trait Stopwatch {
    /// Seconds since the problem was taken up.
    fn now(&self) -> f64;
    /// For how long a candidate is to be run before its time counts, now.
    fn warm_up(&self) -> WarmUp;
    /// Does something with nothing on the device but what it asks for.
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

/// For tests, a moment.
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
