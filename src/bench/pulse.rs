//! A short fixed piece of arithmetic that keeps a device's clocks up and shows their present rate.

use super::clock::Clock;
use super::kernels::multiply_add::{MAX_ITERATIONS, OPERATIONS, RateParams};
use super::kernels::{BenchKernel, Scalar};
use super::prepared::Prepared;
use crate::{Result, Step};

/// Target seconds of a pulse; less where the clocks were low when it was fitted.
const SECONDS: f64 = 0.002;

/// Number of workgroups: enough for every core of most devices, and few enough to leave room for other work and draw little power.
const WORKGROUPS: u32 = 64;

/// Number of pulses of which the fastest gives the rate.
const PULSES: usize = 3;

#[derive(Debug)]
pub(super) struct Pulse {
    kernel: Prepared,
    step: Step,
    num_iterations: u32,
}

impl Pulse {
    /// Compiles it, and finds the amount of work that takes long enough.
    pub(super) fn new(clock: &Clock) -> Result<Self> {
        let kernel = BenchKernel::MultiplyAdd(Scalar::F32);
        let prepared = Prepared::new(clock.context(), kernel)?;
        let sums = prepared.output(16 * u64::from(WORKGROUPS * kernel.workgroup_size()))?;
        let prepared = prepared.with_buffer("sums", &sums);
        let mut num_iterations = 1;
        loop {
            let params = RateParams::counting(num_iterations);
            let step = prepared.bind(bytemuck::bytes_of(&params), WORKGROUPS)?;
            let pulse = Self { kernel: prepared.clone(), step, num_iterations };
            if num_iterations >= MAX_ITERATIONS || pulse.fastest(clock)? >= 0.75 * SECONDS {
                return Ok(pulse);
            }
            num_iterations *= 2;
        }
    }

    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.step.encode_in(pass);
    }

    /// Present rate, operations a second.
    pub(super) fn rate(&self, clock: &Clock) -> Result<f64> {
        let invocations = u64::from(WORKGROUPS * self.kernel.kernel.workgroup_size());
        let operations = OPERATIONS * invocations * u64::from(self.num_iterations);
        Ok(operations as f64 / self.fastest(clock)?.max(f64::MIN_POSITIVE))
    }

    fn fastest(&self, clock: &Clock) -> Result<f64> {
        (0..PULSES).try_fold(f64::INFINITY, |best, _| Ok(clock.time(|pass| self.encode(pass))?.seconds().min(best)))
    }
}
