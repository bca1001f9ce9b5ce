//! The parts of a case, timed in turns.

use std::time::Instant;

use super::ceilings::cpu_reference;
use super::clock::Clock;
use super::samples::{Meter, sample_rounds, warm_parts};
use super::{Clocks, Part, Runner, Samples, WarmUp};
use crate::Result;

/// Samples of each part with nothing else on the device, and its clocks before and after. No clock on the CPU.
pub(super) fn time_parts(
    runner: &mut Runner,
    parts: &[Part],
    clock: Option<&Clock>,
    seconds: f64,
) -> Result<(Vec<Samples>, Clocks)> {
    let (_quiet, num_parts) = (clock.map(Clock::quiet), parts.len());
    let mut parts = Parts { runner, parts, clock, begin: Instant::now() };
    let calls = warm_parts(&mut parts, num_parts)?;
    let before = reference(clock)?;
    let samples = sample_rounds(&mut parts, &calls, seconds)?;
    Ok((samples, Clocks { before, after: reference(clock)? }))
}

/// Operations a second of a short fixed piece of work.
fn reference(clock: Option<&Clock>) -> Result<f64> {
    clock.map_or_else(|| Ok(cpu_reference()), Clock::reference)
}

struct Parts<'a> {
    runner: &'a mut Runner,
    parts: &'a [Part],
    clock: Option<&'a Clock>,
    begin: Instant,
}

impl Meter for Parts<'_> {
    fn run(&mut self, part: usize, calls: u32) -> Result<f64> {
        self.runner.run(self.parts[part], calls).map(|elapsed| elapsed.seconds())
    }

    fn now(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    fn warm_up(&self) -> WarmUp {
        self.clock.map_or(WarmUp::PROCESSOR, Clock::warm_up)
    }
}
