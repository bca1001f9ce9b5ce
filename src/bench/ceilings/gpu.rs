//! Ceilings of a device, by kernels whose results are checked, so that skipped work cannot count.

use super::{Ceiling, CeilingKind, best_run};
use crate::bench::clock::{Clock, Elapsed, Stamps};
use crate::bench::kernels::copy_words::CopyParams;
use crate::bench::kernels::multiply_add::{MAX_ITERATIONS, OPERATIONS, RateParams};
use crate::bench::kernels::multiply_matrices::{self, MatrixParams};
use crate::bench::kernels::{BenchKernel, Scalar};
use crate::bench::prepared::Prepared;
use crate::bench::{BenchError, BenchResult};
use crate::{Context, Result};

/// Most bytes that are copied: more than every cache holds; and fewest MiB: more than most caches hold.
const MOST_COPIED: u64 = 512 << 20;
const LEAST_COPIED: u32 = 32;

/// Number of workgroups: several times as many as the largest device holds, and a software device.
const WORKGROUPS: u32 = 8192;
const SOFTWARE_WORKGROUPS: u32 = 64;

pub(super) fn measure(clock: &Clock) -> BenchResult<Vec<Ceiling>> {
    Ok(vec![copy(clock)?, f32_rate(clock)?, f16_rate(clock)?, matrix_rate(clock)?])
}

/// Whether the device's timestamps are credible: those of a long copy must agree with the host's clock. Returns the reason if not.
pub(in crate::bench) fn stamps_for(ctx: &Context) -> BenchResult<(Stamps, String)> {
    if !ctx.caps().timestamps {
        return Ok((Stamps::Leave, "the device has no timestamps".to_owned()));
    }
    let clock = Clock::new(ctx, Stamps::Take)?;
    let probe = Copying::new(&clock)?;
    let mut seen = (0.0, 0.0);
    best_run(&clock, 1, probe.most, |mib| {
        let elapsed = probe.run(mib)?;
        seen = (elapsed.device.unwrap_or(0.0), elapsed.wall);
        Ok::<_, crate::Error>(elapsed.wall)
    })?;
    let (device, wall) = seen;
    // On a fast device submitting and waiting may take as long as a short copy, so the device's time may be less than the host's. It cannot
    // be more, nor nearly 0.
    Ok(if device > 1.05 * wall || device < 0.05 * wall {
        let reason = format!("the device's timestamps say {:.3} ms where {:.3} ms passed", 1e3 * device, 1e3 * wall);
        (Stamps::Leave, reason)
    } else {
        (Stamps::Take, "between the borders of the compute pass".to_owned())
    })
}

fn copy(clock: &Clock) -> BenchResult<Ceiling> {
    let copying = Copying::new(clock)?;
    let run = |mib| copying.run(mib).map(|elapsed| elapsed.seconds());
    let (mib, seconds) = best_run(clock, LEAST_COPIED, copying.most, run)?;
    copying.check(mib)?;
    let rate = Some(2.0 * f64::from(mib) * f64::from(1 << 20) / seconds);
    Ok(Ceiling::new(CeilingKind::Copy, rate, format!("{mib} MiB copied")))
}

/// A buffer and its copy.
struct Copying {
    clock: Clock,
    kernel: Prepared,
    copied: wgpu::Buffer,
    /// Size of the buffers in MiB.
    most: u32,
}

impl Copying {
    fn new(clock: &Clock) -> Result<Self> {
        let (ctx, caps) = (clock.context(), clock.context().caps());
        // A software device copies through the caches of the host's processor.
        let most = if caps.software { MOST_COPIED / 4 } else { MOST_COPIED };
        let most = (most.min(caps.max_storage_binding_bytes).min(caps.max_buffer_bytes) >> 20).max(1) as u32; // at most 512
        let kernel = Prepared::new(ctx, BenchKernel::CopyWords)?;
        let words: Vec<u32> = (0..most << 18).map(pattern).collect();
        let from = kernel.upload(bytemuck::cast_slice(&words))?;
        let copied = kernel.output(u64::from(most) << 20)?;
        let kernel = kernel.with_buffer("words", &from).with_buffer("copied", &copied);
        Ok(Self { clock: clock.clone(), kernel, copied, most })
    }

    fn run(&self, mib: u32) -> Result<Elapsed> {
        let num_vec4 = mib << 16;
        let workgroups = num_vec4.div_ceil(BenchKernel::CopyWords.workgroup_size()).min(1 << 14);
        self.kernel.time(&self.clock, bytemuck::bytes_of(&CopyParams { num_vec4 }), workgroups)
    }

    /// Checks that every word was copied.
    fn check(&self, mib: u32) -> BenchResult<()> {
        let got = self.clock.context().read_u32(&self.copied).wait()?;
        let wrong = (0..mib << 18).zip(&got).find(|&(at, &word)| word != pattern(at));
        match wrong {
            None => Ok(()),
            Some((at, &word)) => Err(BenchError::Ceiling {
                kernel: BenchKernel::CopyWords.name(),
                got: f32::from_bits(word),
                expected: f32::from_bits(pattern(at)),
            }),
        }
    }
}

/// Normal numbers also as f32, since they are read back as f32.
const fn pattern(at: u32) -> u32 {
    0x3f80_0000 | (at % 0x007f_ffff)
}

fn f32_rate(clock: &Clock) -> BenchResult<Ceiling> {
    measured(CeilingKind::F32, &Counting::vectors(clock, Scalar::F32)?)
}

fn f16_rate(clock: &Clock) -> BenchResult<Ceiling> {
    let (kind, caps) = (CeilingKind::F16, clock.context().caps());
    if !caps.shader_f16 {
        return Ok(Ceiling::new(kind, None, "the device has no f16 in shaders"));
    }
    if caps.software {
        return Ok(Ceiling::new(kind, None, "software devices compute f16 one by one, which would say nothing"));
    }
    measured(kind, &Counting::vectors(clock, Scalar::F16)?)
}

fn matrix_rate(clock: &Clock) -> BenchResult<Ceiling> {
    let (kind, caps) = (CeilingKind::Matrix, clock.context().caps());
    if caps.software {
        return Ok(Ceiling::new(kind, None, "software devices have no matrix units, some imitate them"));
    }
    match multiply_matrices::kernel_for(caps) {
        Some((kernel, edge)) => measured(kind, &Counting::matrices(clock, kernel, edge)?),
        None => {
            let note = "the device has no square matrices of f16 into f32, or subgroups of several sizes";
            Ok(Ceiling::new(kind, None, note))
        }
    }
}

fn measured(kind: CeilingKind, counting: &Counting) -> BenchResult<Ceiling> {
    let run = |iterations| counting.run(iterations).map(|elapsed| elapsed.seconds());
    let (iterations, seconds) = best_run(&counting.clock, 1, counting.max_iterations, run)?;
    counting.check(iterations)?;
    let operations = counting.operations * u64::from(counting.workgroups) * u64::from(iterations);
    let kernel = counting.kernel.kernel;
    let note = format!(
        "{} workgroups of {}, {iterations} iterations, {}",
        counting.workgroups,
        kernel.workgroup_size(),
        match counting.sums {
            Sums::Vectors(_) => "vectors of 4".to_owned(),
            Sums::Matrices { edge } => format!("tiles of {edge} x {edge}, f16 into f32"),
        }
    );
    Ok(Ceiling::new(kind, Some(operations as f64 / seconds), note))
}

/// A kernel that counts its own iterations, in f32 or in f16.
struct Counting {
    clock: Clock,
    kernel: Prepared,
    written: wgpu::Buffer,
    workgroups: u32,
    /// Operations of a workgroup in an iteration.
    operations: u64,
    max_iterations: u32,
    sums: Sums,
}

/// The output.
#[derive(Clone, Copy)]
enum Sums {
    /// For each invocation the sums of its chains.
    Vectors(Scalar),
    /// For each workgroup the sum of its products.
    Matrices { edge: u32 },
}

impl Counting {
    fn vectors(clock: &Clock, scalar: Scalar) -> Result<Self> {
        let ctx = clock.context();
        let kernel = BenchKernel::MultiplyAdd(scalar);
        let workgroups = num_workgroups(ctx);
        let prepared = Prepared::new(ctx, kernel)?;
        let written = prepared.output(16 * u64::from(workgroups * kernel.workgroup_size()))?;
        Ok(Self {
            clock: clock.clone(),
            kernel: prepared.with_buffer("sums", &written),
            written,
            workgroups,
            operations: OPERATIONS * u64::from(kernel.workgroup_size()),
            max_iterations: MAX_ITERATIONS,
            sums: Sums::Vectors(scalar),
        })
    }

    fn matrices(clock: &Clock, kernel: BenchKernel, edge: u32) -> Result<Self> {
        let ctx = clock.context();
        let workgroups = num_workgroups(ctx);
        let prepared = Prepared::new(ctx, kernel)?;
        let [a, b] = multiply_matrices::operands(edge);
        let (a, b) = (prepared.upload(bytemuck::cast_slice(&a))?, prepared.upload(bytemuck::cast_slice(&b))?);
        let written = prepared.output(4 * u64::from(workgroups * edge * edge))?;
        Ok(Self {
            clock: clock.clone(),
            kernel: prepared.with_buffer("a", &a).with_buffer("b", &b).with_buffer("sums", &written),
            written,
            workgroups,
            operations: multiply_matrices::operations(edge),
            max_iterations: multiply_matrices::MAX_ITERATIONS,
            sums: Sums::Matrices { edge },
        })
    }

    fn run(&self, num_iterations: u32) -> Result<Elapsed> {
        match self.sums {
            Sums::Vectors(_) => {
                let params = RateParams::counting(num_iterations);
                self.kernel.time(&self.clock, bytemuck::bytes_of(&params), self.workgroups)
            }
            Sums::Matrices { .. } => {
                let params = MatrixParams { num_iterations };
                self.kernel.time(&self.clock, bytemuck::bytes_of(&params), self.workgroups)
            }
        }
    }

    /// Checks that every iteration was counted.
    fn check(&self, num_iterations: u32) -> BenchResult<()> {
        for (at, word) in (0..).zip(self.clock.context().read_u32(&self.written).wait()?) {
            let expected = match self.sums {
                Sums::Vectors(scalar) => RateParams::counting(num_iterations).counted(at / 4, scalar),
                Sums::Matrices { .. } => MatrixParams { num_iterations }.counted(),
            };
            let got = f32::from_bits(word);
            if got != expected {
                return Err(BenchError::Ceiling { kernel: self.kernel.kernel.name(), got, expected });
            }
        }
        Ok(())
    }
}

/// Runs a kernel for this amount of work, MiB or iterations, and checks its output. For tests.
pub fn verify_kernel(ctx: &Context, kernel: BenchKernel, work: u32) -> BenchResult<()> {
    let clock = Clock::new(ctx, Stamps::Leave)?;
    let counting = match kernel {
        BenchKernel::CopyWords => {
            let copying = Copying::new(&clock)?;
            copying.run(work)?;
            return copying.check(work);
        }
        BenchKernel::MultiplyAdd(scalar) => Counting::vectors(&clock, scalar)?,
        BenchKernel::MultiplyMatrices { edge, .. } => Counting::matrices(&clock, kernel, edge)?,
    };
    counting.run(work)?;
    counting.check(work)
}

fn num_workgroups(ctx: &Context) -> u32 {
    if ctx.caps().software { SOFTWARE_WORKGROUPS } else { WORKGROUPS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextOptions, SoftwareAdapters};

    #[test]
    fn work_that_was_left_out_is_told() {
        let options = ContextOptions::default().with_software(SoftwareAdapters::Accept);
        let ctx = Context::request(&options).wait().expect("a GPU adapter, a software one will do");
        let clock = Clock::new(&ctx, Stamps::Leave).unwrap();
        let copying = Copying::new(&clock).unwrap();
        copying.run(1).unwrap();
        copying.check(1).unwrap();
        assert!(matches!(copying.check(2), Err(BenchError::Ceiling { kernel: "copy_words", .. })));
        let counting = Counting::vectors(&clock, Scalar::F32).unwrap();
        counting.run(3).unwrap();
        counting.check(3).unwrap();
        assert!(matches!(counting.check(4), Err(BenchError::Ceiling { kernel: "multiply_add", .. })));
    }
}
