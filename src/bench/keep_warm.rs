//! Keeps a device busy while the CPU makes inputs, compiles and checks, so that its clocks do not fall.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::pulse::Pulse;
use crate::device::context::scoped;
use crate::{Context, Result};

/// A thread that submits pulse after pulse, two at a time, until it is paused or dropped.
#[derive(Debug)]
pub(super) struct KeepWarm {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Number of submitted pulses, and of finished ones.
    submitted: AtomicU64,
    finished: AtomicU64,
    #[cfg(test)]
    log: Mutex<Vec<[std::time::Instant; 2]>>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of callers who want the device free of it.
    pauses: u32,
    /// The device has none of its work, and gets none while a caller wants it quiet.
    idle: bool,
    /// Whether it should end.
    stop: bool,
    /// Whether it has ended, on request or by an error of the device.
    ended: bool,
}

impl Shared {
    /// The lock guards nothing that a panic could leave half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeepWarm {
    /// Starts at once. If no thread can be made, the device is not kept warm.
    pub(super) fn start(ctx: &Context, pulse: Arc<Pulse>) -> Self {
        let shared = Arc::new(Shared::default());
        let (for_thread, ctx) = (Arc::clone(&shared), ctx.clone());
        let builder = std::thread::Builder::new().name("wattn.keep_warm".to_owned());
        let thread = builder.spawn(move || {
            let end = End(for_thread);
            // The device's error will reach its next user.
            let _ = keep(&end.0, &ctx, &pulse);
        });
        if thread.is_err() {
            shared.lock().ended = true;
        }
        Self { shared, thread: thread.ok() }
    }

    /// Waits until the device has none of its work. Each pause needs a [`resume`](Self::resume).
    pub(super) fn pause(&self) {
        let mut state = self.shared.lock();
        state.pauses += 1;
        self.shared.changed.notify_all();
        while !state.idle && !state.ended {
            state = self.shared.wait(state);
        }
    }

    pub(super) fn resume(&self) {
        self.shared.lock().pauses -= 1;
        self.shared.changed.notify_all();
    }

    /// Whether it still works when nobody pauses it.
    pub(super) fn is_alive(&self) -> bool {
        !self.shared.lock().ended
    }
}

impl Drop for KeepWarm {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It should not panic; if it does, it has ended as well.
            let _ = thread.join();
        }
    }
}

/// Records the end of the thread, however it ends.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// A pulse on the device.
struct Flying {
    index: wgpu::SubmissionIndex,
    #[cfg(test)]
    begin: std::time::Instant,
}

fn keep(shared: &Shared, ctx: &Context, pulse: &Pulse) -> Result<()> {
    let mut before: Option<Flying> = None;
    loop {
        let mut state = shared.lock();
        if state.pauses > 0 || state.stop {
            drop(state);
            land(shared, ctx, before.take())?;
            state = shared.lock();
            state.idle = true;
            shared.changed.notify_all();
            while state.pauses > 0 && !state.stop {
                state = shared.wait(state);
            }
            if state.stop {
                return Ok(());
            }
            state.idle = false;
        }
        drop(state);
        let next = Some(fly(shared, ctx, pulse)?);
        // When one pulse ends the next is already submitted; there are never more.
        land(shared, ctx, std::mem::replace(&mut before, next))?;
    }
}

fn fly(shared: &Shared, ctx: &Context, pulse: &Pulse) -> Result<Flying> {
    ctx.check_lost()?;
    #[cfg(test)]
    let begin = std::time::Instant::now();
    // Not in the context's own scope, which others hold while they compile.
    let index = scoped(ctx.device(), "keeping a device busy", || {
        let label = Some("wattn.bench.keep_warm");
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
        let timestamp_writes = None;
        pulse.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes }));
        ctx.queue().submit([encoder.finish()])
    })?;
    shared.submitted.fetch_add(1, Ordering::Relaxed);
    Ok(Flying {
        index,
        #[cfg(test)]
        begin,
    })
}

fn land(shared: &Shared, ctx: &Context, flying: Option<Flying>) -> Result<()> {
    let Some(flying) = flying else { return Ok(()) };
    ctx.device().poll(wgpu::PollType::Wait { submission_index: Some(flying.index), timeout: None })?;
    shared.finished.fetch_add(1, Ordering::Relaxed);
    #[cfg(test)]
    shared.log.lock().unwrap().push([flying.begin, std::time::Instant::now()]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::bench::clock::{Clock, Stamps};
    use crate::{ContextOptions, SoftwareAdapters};

    fn context() -> Context {
        let options = ContextOptions::default().with_software(SoftwareAdapters::Accept);
        Context::request(&options).wait().expect("a GPU adapter, a software one will do")
    }

    impl KeepWarm {
        fn submitted(&self) -> u64 {
            self.shared.submitted.load(Ordering::Relaxed)
        }

        /// Waits for this many more pulses.
        fn wait_for(&self, more: u64) {
            let (from, begin) = (self.submitted(), Instant::now());
            while self.submitted() < from + more {
                assert!(begin.elapsed() < Duration::from_secs(20), "no pulse for long");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn nothing_of_it_is_on_the_device_while_something_is_timed() {
        let ctx = context();
        let clock = Clock::new(&ctx, Stamps::Leave).unwrap().kept_warm_even_if_software().unwrap();
        let warm = clock.warm().unwrap();
        let pulse = Pulse::new(&Clock::new(&ctx, Stamps::Leave).unwrap()).unwrap();
        for _ in 0..20 {
            warm.wait_for(2); // it goes on between two timings
            clock.time(|pass| pulse.encode(pass)).unwrap();
        }
        {
            // A section of many timings is quiet as a whole.
            let _quiet = clock.quiet();
            let before = warm.submitted();
            assert_eq!(warm.shared.finished.load(Ordering::Relaxed), before);
            for _ in 0..3 {
                clock.time(|pass| pulse.encode(pass)).unwrap();
            }
            assert_eq!(warm.submitted(), before);
        }
        warm.wait_for(2);
        let _quiet = clock.quiet();
        let (log, timed) = (warm.shared.log.lock().unwrap(), clock.timed());
        assert!(timed.len() >= 23, "{}", timed.len());
        assert!(log.len() >= 40 && log.len() as u64 == warm.submitted(), "{}", log.len());
        for [begin, end] in &timed {
            let overlapping = log.iter().filter(|[from, to]| from < end && begin < to).count();
            assert_eq!(overlapping, 0);
        }
        // Never more than two at a time.
        for [begin, _] in log.iter() {
            let flying = log.iter().filter(|[from, to]| from <= begin && begin < to).count();
            assert!(flying <= 2, "{flying}");
        }
    }

    #[test]
    fn it_ends_with_its_owner_and_with_the_device() {
        let ctx = context();
        let clock = Clock::new(&ctx, Stamps::Leave).unwrap().kept_warm_even_if_software().unwrap();
        clock.warm().unwrap().wait_for(1);
        let shared = Arc::clone(&clock.warm().unwrap().shared);
        drop(clock);
        assert!(shared.lock().ended);
        let after = shared.submitted.load(Ordering::Relaxed);
        ctx.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        assert_eq!(shared.submitted.load(Ordering::Relaxed), after);

        // While it is paused, too.
        let clock = Clock::new(&ctx, Stamps::Leave).unwrap().kept_warm_even_if_software().unwrap();
        let warm = clock.warm().unwrap();
        warm.pause();
        drop(clock);

        let clock = Clock::new(&ctx, Stamps::Leave).unwrap().kept_warm_even_if_software().unwrap();
        ctx.device().destroy();
        // Neither hangs.
        assert!(clock.time(|_| ()).is_err());
        let begin = Instant::now();
        while clock.warm().unwrap().is_alive() {
            assert!(begin.elapsed() < Duration::from_secs(20), "it does not notice that the device is lost");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_software_device_is_not_kept_busy() {
        let ctx = context();
        let clock = Clock::new(&ctx, Stamps::Leave).unwrap().kept_warm().unwrap();
        assert_eq!(clock.warm().is_some(), !ctx.caps().software);
    }
}
