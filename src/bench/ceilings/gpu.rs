//! Ceilings of a device, by kernels whose results are checked: nothing that was left out can count.

use super::{Ceiling, CeilingKind, best_run};
use crate::bench::clock::{Clock, Elapsed, Stamps};
use crate::bench::kernels::copy_words::CopyParams;
use crate::bench::kernels::multiply_add::{MAX_ITERATIONS, OPERATIONS, RateParams};
use crate::bench::kernels::multiply_matrices::{self, MatrixParams};
use crate::bench::kernels::{BenchKernel, Scalar};
use crate::bench::{BenchError, BenchResult};
use crate::pipeline::{Pipeline, module};
use crate::{Context, Result};

/// Bytes that are copied at the most: past every cache; and MiB at the least: past most.
const MOST_COPIED: u64 = 512 << 20;
const LEAST_COPIED: u32 = 32;

/// Workgroups that fill the largest device several times over, and a software device.
const WORKGROUPS: u32 = 8192;
const SOFTWARE_WORKGROUPS: u32 = 64;

pub(super) fn measure(ctx: &Context, stamps: Stamps) -> BenchResult<Vec<Ceiling>> {
    Ok(vec![copy(ctx, stamps)?, f32_rate(ctx, stamps)?, f16_rate(ctx, stamps)?, matrix_rate(ctx, stamps)?])
}

/// Whether the device's timestamps can be believed: those of a copy that takes a while must agree with the host's clock.
/// The reason if they cannot.
pub(in crate::bench) fn stamps_for(ctx: &Context) -> BenchResult<(Stamps, String)> {
    if !ctx.caps().timestamps {
        return Ok((Stamps::Leave, "the device has no timestamps".to_owned()));
    }
    let probe = Copying::new(ctx, Stamps::Take)?;
    let mut seen = (0.0, 0.0);
    best_run(1, probe.most, |mib| {
        let elapsed = probe.run(mib)?;
        seen = (elapsed.device.unwrap_or(0.0), elapsed.wall);
        Ok::<_, crate::Error>(elapsed.wall)
    })?;
    let (device, wall) = seen;
    // Submitting and waiting may take as long as a short copy on a fast device; time that the host did not see pass, or
    // nearly none, is no time.
    Ok(if device > 1.05 * wall || device < 0.05 * wall {
        let reason = format!("the device's timestamps say {:.3} ms where {:.3} ms passed", 1e3 * device, 1e3 * wall);
        (Stamps::Leave, reason)
    } else {
        (Stamps::Take, "between the borders of the compute pass".to_owned())
    })
}

pub(super) fn copy(ctx: &Context, stamps: Stamps) -> BenchResult<Ceiling> {
    let copying = Copying::new(ctx, stamps)?;
    let (mib, seconds) = best_run(LEAST_COPIED, copying.most, |mib| copying.run(mib).map(|elapsed| elapsed.seconds()))?;
    copying.check(mib)?;
    let rate = Some(2.0 * f64::from(mib) * f64::from(1 << 20) / seconds);
    Ok(Ceiling { kind: CeilingKind::Copy, rate, note: format!("{mib} MiB copied") })
}

/// A buffer and its copy.
struct Copying<'a> {
    clock: Clock,
    kernel: Prepared<'a>,
    copied: wgpu::Buffer,
    /// MiB that the buffers hold.
    most: u32,
}

impl<'a> Copying<'a> {
    fn new(ctx: &'a Context, stamps: Stamps) -> Result<Self> {
        let caps = ctx.caps();
        // A software device copies through the caches of the host's processor.
        let most = if caps.software { MOST_COPIED / 4 } else { MOST_COPIED };
        let most = (most.min(caps.max_storage_binding_bytes).min(caps.max_buffer_bytes) >> 20).max(1) as u32; // at most 512
        let kernel = Prepared::new(ctx, BenchKernel::CopyWords)?;
        let words: Vec<u32> = (0..most << 18).map(pattern).collect();
        let from = kernel.upload(bytemuck::cast_slice(&words))?;
        let copied = kernel.output(u64::from(most) << 20)?;
        let kernel = kernel.with_buffers(vec![from, copied.clone()]);
        Ok(Self { clock: Clock::new(ctx, stamps)?, kernel, copied, most })
    }

    fn run(&self, mib: u32) -> Result<Elapsed> {
        let num_vec4 = mib << 16;
        let workgroups = num_vec4.div_ceil(BenchKernel::CopyWords.workgroup_size()).min(1 << 14);
        self.kernel.time(&self.clock, bytemuck::bytes_of(&CopyParams { num_vec4 }), workgroups)
    }

    /// Every word that was to be copied was.
    fn check(&self, mib: u32) -> BenchResult<()> {
        let got = self.clock.context().read_u32_blocking(&self.copied)?;
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

/// Normal numbers as f32 too, as which they are read back.
const fn pattern(at: u32) -> u32 {
    0x3f80_0000 | (at % 0x007f_ffff)
}

fn f32_rate(ctx: &Context, stamps: Stamps) -> BenchResult<Ceiling> {
    measured(CeilingKind::F32, &Counting::vectors(ctx, stamps, Scalar::F32)?)
}

fn f16_rate(ctx: &Context, stamps: Stamps) -> BenchResult<Ceiling> {
    let none = |note: &str| Ok(Ceiling { kind: CeilingKind::F16, rate: None, note: note.to_owned() });
    if !ctx.caps().shader_f16 {
        return none("the device has no f16 in shaders");
    }
    if ctx.caps().software {
        return none("software devices compute f16 one by one, which would say nothing");
    }
    measured(CeilingKind::F16, &Counting::vectors(ctx, stamps, Scalar::F16)?)
}

fn matrix_rate(ctx: &Context, stamps: Stamps) -> BenchResult<Ceiling> {
    let kind = CeilingKind::Matrix;
    if ctx.caps().software {
        let note = "software devices have no matrix units, some imitate them".to_owned();
        return Ok(Ceiling { kind, rate: None, note });
    }
    match multiply_matrices::kernel_for(ctx.caps()) {
        Some((kernel, edge)) => measured(kind, &Counting::matrices(ctx, stamps, kernel, edge)?),
        None => {
            let note = "the device has no square matrices of f16 into f32, or subgroups of several sizes".to_owned();
            Ok(Ceiling { kind, rate: None, note })
        }
    }
}

fn measured(kind: CeilingKind, counting: &Counting<'_>) -> BenchResult<Ceiling> {
    let run = |iterations| counting.run(iterations).map(|elapsed| elapsed.seconds());
    let (iterations, seconds) = best_run(1, counting.max_iterations, run)?;
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
    Ok(Ceiling { kind, rate: Some(operations as f64 / seconds), note })
}

/// A kernel that counts its own iterations, in f32 or in f16.
struct Counting<'a> {
    clock: Clock,
    kernel: Prepared<'a>,
    written: wgpu::Buffer,
    workgroups: u32,
    /// Of a workgroup in an iteration.
    operations: u64,
    max_iterations: u32,
    sums: Sums,
}

/// What is written.
#[derive(Clone, Copy)]
enum Sums {
    /// For each invocation the sums of its chains.
    Vectors(Scalar),
    /// For each workgroup the sum of its products.
    Matrices { edge: u32 },
}

impl<'a> Counting<'a> {
    fn vectors(ctx: &'a Context, stamps: Stamps, scalar: Scalar) -> Result<Self> {
        let kernel = BenchKernel::MultiplyAdd(scalar);
        let workgroups = num_workgroups(ctx);
        let prepared = Prepared::new(ctx, kernel)?;
        let written = prepared.output(16 * u64::from(workgroups * kernel.workgroup_size()))?;
        Ok(Self {
            clock: Clock::new(ctx, stamps)?,
            kernel: prepared.with_buffers(vec![written.clone()]),
            written,
            workgroups,
            operations: OPERATIONS * u64::from(kernel.workgroup_size()),
            max_iterations: MAX_ITERATIONS,
            sums: Sums::Vectors(scalar),
        })
    }

    fn matrices(ctx: &'a Context, stamps: Stamps, kernel: BenchKernel, edge: u32) -> Result<Self> {
        let workgroups = num_workgroups(ctx);
        let prepared = Prepared::new(ctx, kernel)?;
        let [a, b] = multiply_matrices::operands(edge);
        let (a, b) = (prepared.upload(bytemuck::cast_slice(&a))?, prepared.upload(bytemuck::cast_slice(&b))?);
        let written = prepared.output(4 * u64::from(workgroups * edge * edge))?;
        Ok(Self {
            clock: Clock::new(ctx, stamps)?,
            kernel: prepared.with_buffers(vec![a, b, written.clone()]),
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

    /// Every iteration was counted.
    fn check(&self, num_iterations: u32) -> BenchResult<()> {
        for (at, word) in (0..).zip(self.clock.context().read_u32_blocking(&self.written)?) {
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

/// Runs a kernel with so much work, MiB or iterations, and compares what it wrote with what it must write. For tests.
pub fn verify_kernel(ctx: &Context, kernel: BenchKernel, work: u32) -> BenchResult<()> {
    let stamps = Stamps::Leave;
    let counting = match kernel {
        BenchKernel::CopyWords => {
            let copying = Copying::new(ctx, stamps)?;
            copying.run(work)?;
            return copying.check(work);
        }
        BenchKernel::MultiplyAdd(scalar) => Counting::vectors(ctx, stamps, scalar)?,
        BenchKernel::MultiplyMatrices { edge, .. } => Counting::matrices(ctx, stamps, kernel, edge)?,
    };
    counting.run(work)?;
    counting.check(work)
}

fn num_workgroups(ctx: &Context) -> u32 {
    if ctx.caps().software { SOFTWARE_WORKGROUPS } else { WORKGROUPS }
}

/// A kernel, compiled, with its uniform and then its buffers.
struct Prepared<'a> {
    ctx: &'a Context,
    kernel: BenchKernel,
    pipeline: Pipeline,
    buffers: Vec<wgpu::Buffer>,
}

impl<'a> Prepared<'a> {
    fn new(ctx: &'a Context, kernel: BenchKernel) -> Result<Self> {
        let pipeline = ctx.scoped("creating a pipeline", || {
            let module = module(ctx, kernel.label(), kernel.wgsl());
            Pipeline::new(ctx, kernel.label(), kernel.name(), &module, kernel.bindings())
        })?;
        Ok(Self { ctx, kernel, pipeline, buffers: Vec::new() })
    }

    fn with_buffers(mut self, buffers: Vec<wgpu::Buffer>) -> Self {
        self.buffers = buffers;
        self
    }

    fn upload(&self, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let (label, usage) = (self.kernel.label(), wgpu::BufferUsages::STORAGE);
        self.ctx.scoped("uploading operands", || self.ctx.upload(label, bytes, usage))
    }

    fn output(&self, size: u64) -> Result<wgpu::Buffer> {
        self.ctx.scoped("creating outputs", || {
            self.ctx.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(self.kernel.label()),
                size,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            })
        })
    }

    /// One dispatch.
    fn time(&self, clock: &Clock, params: &[u8], workgroups: u32) -> Result<Elapsed> {
        let label = Some(self.kernel.label());
        let bind_group = self.ctx.scoped("binding a ceiling", || {
            let uniform = self.ctx.upload(self.kernel.label(), params, wgpu::BufferUsages::UNIFORM);
            let entries: Vec<_> = (0..)
                .zip([&uniform].into_iter().chain(&self.buffers))
                .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
                .collect();
            let layout = &self.pipeline.layout;
            self.ctx.device().create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries: &entries })
        })?;
        // What was written for this run must not be copied within its time.
        self.ctx.scoped("uploading operands", || self.ctx.queue().submit([]))?;
        clock.time(|pass| {
            pass.set_pipeline(&self.pipeline.pipeline);
            pass.set_bind_group(0, &bind_group, &[0]);
            pass.dispatch_workgroups(workgroups, 1, 1);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextOptions, SoftwareAdapters};

    #[test]
    fn work_that_was_left_out_is_told() {
        let options = ContextOptions::default().software(SoftwareAdapters::Accept);
        let ctx = Context::request_blocking(&options).expect("a GPU adapter, a software one will do");
        let copying = Copying::new(&ctx, Stamps::Leave).unwrap();
        copying.run(1).unwrap();
        copying.check(1).unwrap();
        assert!(matches!(copying.check(2), Err(BenchError::Ceiling { kernel: "copy_words", .. })));
        let counting = Counting::vectors(&ctx, Stamps::Leave, Scalar::F32).unwrap();
        counting.run(3).unwrap();
        counting.check(3).unwrap();
        assert!(matches!(counting.check(4), Err(BenchError::Ceiling { kernel: "multiply_add", .. })));
    }
}
