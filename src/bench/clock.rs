//! The time of work on a device.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::keep_warm::KeepWarm;
use super::pulse::Pulse;
use super::samples::quantile;
use super::warm_up::{Streak, WarmUp};
use crate::{Context, Result};

/// Time of one submission.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elapsed {
    /// Seconds from the start of encoding the first call to the end of the last.
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

    /// The mean time of each of several steps.
    pub(super) fn over(self, steps: u32) -> Self {
        let of_step = |seconds: f64| seconds / f64::from(steps);
        Self { wall: of_step(self.wall), device: self.device.map(of_step) }
    }

    /// The time of a call on this thread.
    pub(super) fn of(run: impl FnOnce()) -> Self {
        let begin = Instant::now();
        run();
        Self { wall: begin.elapsed().as_secs_f64(), device: None }
    }
}

/// Whether a clock uses the device's timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamps {
    Take,
    Leave,
}

/// Times compute passes of one device, one at a time. Clones are the same clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    of: Arc<Parts>,
    /// Ends with the last clone.
    warm: Option<Arc<KeepWarm>>,
}

#[derive(Debug)]
struct Parts {
    ctx: Context,
    stamps: Option<Timestamps>,
    begin: Instant,
    activity: Mutex<Activity>,
    pulse: OnceLock<Arc<Pulse>>,
    #[cfg(test)]
    timed: Mutex<Vec<[Instant; 2]>>,
}

/// The device's recent work, by the clock's own time.
#[derive(Debug, Default)]
struct Activity {
    streak: Streak,
    pauses: u32,
    /// When it was last idle before its present run of work.
    warm_since: f64,
}

#[derive(Debug)]
struct Timestamps {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    seconds_per_tick: f64,
}

/// Number of times that encoding is measured.
const ENCODINGS: usize = 15;

/// While this exists, the device does only requested work.
pub(crate) struct Quiet<'a>(&'a Clock);

impl Clock {
    /// Uses timestamps where the device has them and `wanted` says so.
    pub(crate) fn new(ctx: &Context, stamps: Stamps) -> Result<Self> {
        let wanted = stamps == Stamps::Take && ctx.caps().timestamps;
        let stamps = wanted.then(|| ctx.scoped("preparing timestamps", || Timestamps::new(ctx))).transpose()?;
        let parts = Parts {
            ctx: ctx.clone(),
            stamps,
            begin: Instant::now(),
            activity: Mutex::default(),
            pulse: OnceLock::new(),
            #[cfg(test)]
            timed: Mutex::default(),
        };
        Ok(Self { of: parts.into(), warm: None })
    }

    /// Keeps the device busy from now on whenever nothing is timed, until the last clone is dropped. Does nothing for software devices, which
    /// would take cores from the work and have no clocks of their own.
    pub(crate) fn kept_warm(self) -> Result<Self> {
        if self.context().caps().software { Ok(self) } else { self.kept_warm_even_if_software() }
    }

    pub(super) fn kept_warm_even_if_software(mut self) -> Result<Self> {
        let pulse = self.pulse()?;
        self.warm = Some(KeepWarm::start(self.context(), pulse).into());
        self.activity().warm_since = self.now();
        Ok(self)
    }

    #[cfg(test)]
    pub(super) fn warm(&self) -> Option<&KeepWarm> {
        self.warm.as_deref()
    }

    #[cfg(test)]
    pub(super) fn timed(&self) -> Vec<[Instant; 2]> {
        self.of.timed.lock().unwrap().clone()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.of.ctx
    }

    /// Seconds since it was made.
    pub(crate) fn now(&self) -> f64 {
        self.of.begin.elapsed().as_secs_f64()
    }

    /// The time that something must run before its timings count, at this moment.
    pub(crate) fn warm_up(&self) -> WarmUp {
        if self.context().caps().software {
            return WarmUp::PROCESSOR;
        }
        WarmUp::HARDWARE.after(self.activity().streak.seconds(self.now()))
    }

    /// Operations a second of a short fixed piece of work: shows the device's present clocks.
    pub(super) fn reference(&self) -> Result<f64> {
        self.pulse()?.rate(self)
    }

    fn pulse(&self) -> Result<Arc<Pulse>> {
        if let Some(pulse) = self.of.pulse.get() {
            return Ok(Arc::clone(pulse));
        }
        let pulse = Arc::new(Pulse::new(self)?);
        Ok(Arc::clone(self.of.pulse.get_or_init(|| pulse)))
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.of.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the device does only requested work, and keeps it so. Every timing holds one; a caller with many timings in a row holds
    /// one over all of them, so that nothing comes between.
    pub(crate) fn quiet(&self) -> Quiet<'_> {
        if let Some(warm) = &self.warm {
            warm.pause();
            let (now, alive) = (self.now(), warm.is_alive());
            let mut activity = self.activity();
            activity.pauses += 1;
            if activity.pauses == 1 && alive {
                let since = activity.warm_since;
                activity.streak.busy(since, now);
            }
        }
        Quiet(self)
    }

    /// Encodes one compute pass, submits it and waits.
    pub(crate) fn time(&self, encode: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<Elapsed> {
        let ctx = self.context();
        let _quiet = self.quiet();
        let (from, begin) = (self.now(), Instant::now());
        let poll = ctx.scoped("running a benchmark", || {
            ctx.queue().submit([self.encode(encode)]);
            ctx.device().poll(wgpu::PollType::wait_indefinitely())
        })?;
        ctx.check_lost()?;
        poll?;
        let wall = begin.elapsed().as_secs_f64();
        #[cfg(test)]
        self.of.timed.lock().unwrap().push([begin, Instant::now()]);
        let device = self.of.stamps.as_ref().map(|stamps| stamps.seconds(ctx)).transpose()?;
        self.activity().streak.busy(from, self.now());
        Ok(Elapsed { wall, device })
    }

    /// Times `calls` calls in one pass; `encode` gets the number of each, from `next` on.
    #[cfg(feature = "tune")]
    pub(crate) fn time_calls(
        &self,
        calls: u32,
        next: &mut usize,
        encode: impl Fn(&mut wgpu::ComputePass<'_>, usize),
    ) -> Result<Elapsed> {
        self.time(|pass| {
            for _ in 0..calls {
                encode(pass, *next);
                *next += 1;
            }
        })
    }

    /// Seconds that the host needs to encode a pass, the median of several; nothing is submitted.
    pub(crate) fn time_encoding(&self, encode: impl Fn(&mut wgpu::ComputePass<'_>)) -> Result<f64> {
        let mut seconds = Vec::with_capacity(ENCODINGS);
        for _ in 0..ENCODINGS {
            seconds.push(self.context().scoped("encoding a benchmark", || {
                let begin = Instant::now();
                let commands = self.encode(&encode);
                let seconds = begin.elapsed().as_secs_f64();
                drop(commands);
                seconds
            })?);
        }
        seconds.sort_by(f64::total_cmp);
        Ok(quantile(&seconds, 0.5))
    }

    fn encode(&self, encode: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> wgpu::CommandBuffer {
        let label = Some("wattn.bench");
        let mut encoder = self.context().device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
        let timestamp_writes = self.of.stamps.as_ref().map(|stamps| wgpu::ComputePassTimestampWrites {
            query_set: &stamps.set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes }));
        if let Some(stamps) = &self.of.stamps {
            encoder.resolve_query_set(&stamps.set, 0..2, &stamps.resolved, 0);
        }
        encoder.finish()
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let Some(warm) = &self.0.warm else { return };
        let now = self.0.now();
        let mut activity = self.0.activity();
        activity.pauses -= 1;
        if activity.pauses == 0 {
            activity.warm_since = now;
        }
        drop(activity);
        warm.resume();
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
        let words = ctx.read_u32(&self.resolved).wait()?;
        let tick = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        // A clock that runs backwards gives 0, which `Timing` handles.
        Ok(tick(2).saturating_sub(tick(0)) as f64 * self.seconds_per_tick)
    }
}
