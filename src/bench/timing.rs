//! The ways of a subject, timed in turns.

use super::samples::{Meter, sample_rounds, warm_parts};
use super::stopwatch::Stopwatch;
use super::subject::Subject;
use super::{Clocks, Samples, WarmUp};
use crate::Result;

/// Samples of each way with nothing else on the device, and its clocks before and after.
pub(crate) fn time_ways<T: Subject + ?Sized>(
    subject: &mut T,
    ways: &[&T::Ready],
    seconds: f64,
) -> Result<(Vec<Samples>, Clocks)> {
    let watch = subject.watch();
    watch.quietly(|| {
        let mut turns = InTurns::new(subject, ways);
        let calls = warm_parts(&mut turns, ways.len())?;
        let before = watch.reference()?;
        let samples = sample_rounds(&mut turns, &calls, seconds)?;
        Ok((samples, Clocks { before, after: watch.reference()? }))
    })
}

/// Prepared ways as parts that are sampled in turns.
pub(crate) struct InTurns<'a, T: Subject + ?Sized> {
    subject: &'a mut T,
    ways: &'a [&'a T::Ready],
    running: usize,
}

impl<'a, T: Subject + ?Sized> InTurns<'a, T> {
    pub(crate) fn new(subject: &'a mut T, ways: &'a [&'a T::Ready]) -> Self {
        Self { subject, ways, running: 0 }
    }

    /// The way that ran last.
    #[cfg(feature = "tune")]
    pub(crate) const fn running(&self) -> usize {
        self.running
    }
}

impl<T: Subject + ?Sized> Meter for InTurns<'_, T> {
    fn run(&mut self, part: usize, calls: u32) -> Result<f64> {
        self.running = part;
        Ok(self.subject.time(self.ways[part], calls)?.seconds())
    }

    fn now(&self) -> f64 {
        self.subject.watch().now()
    }

    fn warm_up(&self) -> WarmUp {
        self.subject.watch().warm_up()
    }
}
