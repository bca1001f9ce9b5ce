//! Time on a device.

use std::time::Instant;

use crate::{Context, Result};

/// Time of one submission.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elapsed {
    /// Seconds from before the first call was encoded to the end of the last.
    pub wall: f64,
    /// Seconds between the borders of the compute pass, where they are measured.
    pub device: Option<f64>,
}

impl Elapsed {
    /// The device's own time where it is there.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.device.unwrap_or(self.wall)
    }

    /// Of a call on this thread.
    pub(super) fn of(run: impl FnOnce()) -> Self {
        let begin = Instant::now();
        run();
        Self { wall: begin.elapsed().as_secs_f64(), device: None }
    }
}

/// Whether a clock looks at the device's timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamps {
    Take,
    Leave,
}

/// Times compute passes.
#[derive(Debug)]
pub(crate) struct Clock {
    ctx: Context,
    stamps: Option<Timestamps>,
}

#[derive(Debug)]
struct Timestamps {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    seconds_per_tick: f64,
}

impl Clock {
    /// Looks at timestamps where the device has them and they are wanted.
    pub(crate) fn new(ctx: &Context, stamps: Stamps) -> Result<Self> {
        let wanted = stamps == Stamps::Take && ctx.caps().timestamps;
        let stamps = wanted.then(|| ctx.scoped("preparing timestamps", || Timestamps::new(ctx))).transpose()?;
        Ok(Self { ctx: ctx.clone(), stamps })
    }

    pub(super) fn context(&self) -> &Context {
        &self.ctx
    }

    /// Encodes one compute pass, submits it and waits.
    pub(crate) fn time(&self, encode: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<Elapsed> {
        let begin = Instant::now();
        let poll = self.ctx.scoped("running a benchmark", || {
            self.ctx.queue().submit([self.encode(encode)]);
            self.ctx.device().poll(wgpu::PollType::wait_indefinitely())
        })?;
        self.ctx.check_lost()?;
        poll?;
        let wall = begin.elapsed().as_secs_f64();
        let device = self.stamps.as_ref().map(|stamps| stamps.seconds(&self.ctx)).transpose()?;
        Ok(Elapsed { wall, device })
    }

    /// Seconds that the host needs to encode a pass of one call; nothing is submitted.
    pub(super) fn time_encoding(&self, encode: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<f64> {
        self.ctx.scoped("encoding a benchmark", || {
            let begin = Instant::now();
            let commands = self.encode(encode);
            let seconds = begin.elapsed().as_secs_f64();
            drop(commands);
            seconds
        })
    }

    fn encode(&self, encode: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> wgpu::CommandBuffer {
        let label = Some("wattn.bench");
        let mut encoder = self.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
        let timestamp_writes = self.stamps.as_ref().map(|stamps| wgpu::ComputePassTimestampWrites {
            query_set: &stamps.set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes }));
        if let Some(stamps) = &self.stamps {
            encoder.resolve_query_set(&stamps.set, 0..2, &stamps.resolved, 0);
        }
        encoder.finish()
    }
}

impl Timestamps {
    fn new(ctx: &Context) -> Self {
        let label = Some("wattn.bench.timestamps");
        let device = ctx.device();
        Self {
            set: device.create_query_set(&wgpu::QuerySetDescriptor { label, ty: wgpu::QueryType::Timestamp, count: 2 }),
            resolved: device.create_buffer(&wgpu::BufferDescriptor {
                label,
                size: 16,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }),
            seconds_per_tick: f64::from(ctx.queue().get_timestamp_period()) * 1e-9,
        }
    }

    fn seconds(&self, ctx: &Context) -> Result<f64> {
        let words = ctx.read_u32_blocking(&self.resolved)?;
        let tick = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        // A clock that runs backwards gives 0, which `Timing` takes for what it is.
        Ok(tick(2).saturating_sub(tick(0)) as f64 * self.seconds_per_tick)
    }
}
