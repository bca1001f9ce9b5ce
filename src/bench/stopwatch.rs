//! The clock of a subject.

use std::time::Instant;

use super::WarmUp;
use super::ceilings::cpu_reference;
use super::clock::Clock;
use crate::Result;

pub(crate) trait Stopwatch {
    /// Seconds since the subject began.
    fn now(&self) -> f64;
    /// For how long something must run before its time counts, at this moment.
    fn warm_up(&self) -> WarmUp;
    /// Operations a second of a short fixed piece of work: shows the present clocks.
    fn reference(&self) -> Result<f64>;
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

    fn reference(&self) -> Result<f64> {
        Self::reference(self)
    }

    fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        let _quiet = self.quiet();
        work()
    }
}

/// The clock of a case, which runs on the CPU or on a device.
pub(super) enum Watch {
    /// Since then.
    Cpu(Instant),
    Device(Clock),
}

impl Stopwatch for Watch {
    fn now(&self) -> f64 {
        match self {
            Self::Cpu(begin) => begin.elapsed().as_secs_f64(),
            Self::Device(clock) => clock.now(),
        }
    }

    fn warm_up(&self) -> WarmUp {
        match self {
            Self::Cpu(_) => WarmUp::PROCESSOR,
            Self::Device(clock) => clock.warm_up(),
        }
    }

    fn reference(&self) -> Result<f64> {
        match self {
            Self::Cpu(_) => Ok(cpu_reference()),
            Self::Device(clock) => clock.reference(),
        }
    }

    fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        match self {
            Self::Cpu(_) => work(),
            Self::Device(clock) => clock.quietly(work),
        }
    }
}

/// A short time, for tests.
#[cfg(all(test, feature = "tune"))]
impl Stopwatch for f64 {
    fn now(&self) -> f64 {
        *self
    }

    fn warm_up(&self) -> WarmUp {
        WarmUp::PROCESSOR
    }

    fn reference(&self) -> Result<f64> {
        Ok(1.0)
    }

    fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        work()
    }
}
