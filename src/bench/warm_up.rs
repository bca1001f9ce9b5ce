//! When a rate holds. The clocks of hardware fall within a second of idling and take half a second of work to rise.

use super::Target;
use super::samples::quantile;

/// The time that something must run before its timings count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUp {
    /// Fewest seconds of work.
    least: f64,
    /// The last seconds of work, in which the rate must hold.
    window: f64,
    /// Seconds after which the rate counts even if it does not hold.
    most: f64,
}

/// Largest difference between the rates of the newer and the older half of a window.
const TOLERANCE: f64 = 0.02;

/// Fewest seconds of a sample.
const LEAST_SAMPLE: f64 = 0.005;

/// Most calls of a sample.
const MOST_CALLS: f64 = 1000.0;

impl WarmUp {
    /// For a device with clocks of its own.
    pub const HARDWARE: Self = Self { least: 0.6, window: 0.1, most: 3.0 };

    /// For a processor that the host keeps busy anyway: the CPU, and software devices on it. If the rate holds from the start, this
    /// takes 20 ms.
    pub const PROCESSOR: Self = Self { least: 0.02, window: 0.01, most: 0.06 };

    /// For a target.
    #[must_use]
    pub fn of(target: &Target) -> Self {
        match target {
            Target::Gpu(context) if !context.caps().software => Self::HARDWARE,
            _ => Self::PROCESSOR,
        }
    }

    /// The part of it that remains after this many seconds of other work without a pause: at least a look at the rate, since that work may
    /// have been light.
    #[must_use]
    pub(crate) fn after(self, busy: f64) -> Self {
        Self { least: (self.least - busy).max(1.5 * self.window).min(self.least), ..self }
    }
}

/// A rate that holds, or did not within the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Warm {
    /// Calls of a sample.
    pub(super) calls: u32,
    /// Whether the rate held.
    pub(super) held: bool,
}

/// Runs samples until their rate holds. `run` gets a number of calls and returns their seconds, `now` is any clock.
pub(super) fn warm_up<E>(
    rules: WarmUp,
    now: impl Fn() -> f64,
    mut run: impl FnMut(u32) -> Result<f64, E>,
) -> Result<Warm, E> {
    let (begin, mut busy, mut calls) = (now(), 0.0, 1);
    let mut samples = Vec::new();
    loop {
        let seconds = run(calls)?;
        busy += seconds;
        samples.push(Sample { of_call: seconds / f64::from(calls), seconds });
        calls = calls_of_sample(seconds / f64::from(calls));
        let held = busy >= rules.least && holds(&samples, rules.window);
        if held || busy >= rules.most || now() - begin >= rules.most {
            return Ok(Warm { calls, held });
        }
    }
}

/// Calls of a sample, by the seconds of one.
fn calls_of_sample(seconds: f64) -> u32 {
    // A time of 0 means that the clock is too coarse for one call.
    (LEAST_SAMPLE / seconds.max(1e-9)).ceil().clamp(1.0, MOST_CALLS) as u32
}

#[derive(Clone, Copy)]
struct Sample {
    of_call: f64,
    seconds: f64,
}

/// Whether the last samples, at least two and spanning `seconds`, agree: the median of the older ones with the median of the newer.
fn holds(samples: &[Sample], window: f64) -> bool {
    let (mut seconds, mut from) = (0.0, samples.len());
    while from > 0 && (seconds < window || samples.len() - from < 2) {
        from -= 1;
        seconds += samples[from].seconds;
    }
    let last = &samples[from..];
    if seconds < window || last.len() < 2 {
        return false;
    }
    let (older, newer) = last.split_at(last.len() / 2);
    let [older, newer] = [older, newer].map(|samples| {
        let mut sorted: Vec<f64> = samples.iter().map(|sample| sample.of_call).collect();
        sorted.sort_by(f64::total_cmp);
        quantile(&sorted, 0.5)
    });
    (newer - older).abs() <= TOLERANCE * older
}

/// How long a device has been working without a pause that lets its clocks fall.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Streak {
    begin: f64,
    end: f64,
}

/// Seconds of a pause that end a streak.
const PAUSE: f64 = 0.05;

impl Streak {
    /// Work from one moment to another.
    pub(super) fn busy(&mut self, from: f64, to: f64) {
        if from > self.end + PAUSE {
            self.begin = from;
        }
        self.end = to;
    }

    /// Its seconds.
    pub(super) fn seconds(&self, now: f64) -> f64 {
        if now > self.end + PAUSE { 0.0 } else { self.end - self.begin }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    /// A device whose rate rises from a quarter to the whole over half a second of work, after it stayed low for a fifth of a second,
    /// and falls within a second without.
    pub(in crate::bench) struct Sleepy {
        now: Cell<f64>,
        /// Seconds of work that affected its clocks.
        awake: Cell<f64>,
    }

    const STEP: f64 = 1e-4;

    impl Sleepy {
        pub(in crate::bench) const fn asleep() -> Self {
            Self { now: Cell::new(0.0), awake: Cell::new(0.0) }
        }

        pub(in crate::bench) fn now(&self) -> f64 {
            self.now.get()
        }

        fn rate(&self) -> f64 {
            (0.25 + 1.5 * (self.awake.get() - 0.2)).clamp(0.25, 1.0)
        }

        /// Seconds of work that takes `seconds` at full rate.
        pub(in crate::bench) fn work(&self, full: f64) -> f64 {
            let (mut left, mut seconds) = (full, 0.0);
            while left > 0.0 {
                let step = STEP.min(left / self.rate());
                left -= step * self.rate();
                seconds += step;
                self.awake.set((self.awake.get() + step).min(0.7));
            }
            self.now.set(self.now.get() + seconds);
            seconds
        }

        pub(in crate::bench) fn idle(&self, seconds: f64) {
            self.now.set(self.now.get() + seconds);
            self.awake.set((self.awake.get() - seconds).max(0.0));
        }
    }

    fn warm(device: &Sleepy, rules: WarmUp, of_call: f64) -> Warm {
        let run = |calls: u32| Ok::<_, Infallible>(device.work(f64::from(calls) * of_call));
        let Ok(warm) = warm_up(rules, || device.now(), run);
        warm
    }

    #[test]
    fn a_device_that_slept_is_at_full_rate_afterwards() {
        for of_call in [2e-5, 1e-3, 0.03, 0.4] {
            let device = Sleepy::asleep();
            let Warm { calls, held } = warm(&device, WarmUp::HARDWARE, of_call);
            assert!(held, "{of_call}");
            let seconds = device.work(f64::from(calls) * of_call);
            assert!((seconds / f64::from(calls) / of_call - 1.0).abs() < 1e-6, "{of_call}: {seconds}");
            assert!(calls.abs_diff((LEAST_SAMPLE / of_call).ceil() as u32) <= 1, "{of_call}: {calls}");
        }
    }

    #[test]
    fn fifty_milliseconds_were_not_enough() {
        let device = Sleepy::asleep();
        while device.now() < 0.05 {
            device.work(1e-3);
        }
        assert!(device.work(1e-3) > 3.9e-3);
        // Nor is a rate that holds: it holds at the bottom, too.
        let device = Sleepy::asleep();
        assert!(warm(&device, WarmUp { least: 0.0, ..WarmUp::HARDWARE }, 1e-3).held);
        assert!(device.work(1e-3) > 3.9e-3);
    }

    #[test]
    fn what_was_busy_before_is_warm_soon() {
        let device = Sleepy::asleep();
        let mut streak = Streak::default();
        for _ in 0..10 {
            let from = device.now();
            device.work(0.1);
            streak.busy(from, device.now());
        }
        assert!(streak.seconds(device.now()) > 0.9);
        let begin = device.now();
        assert!(warm(&device, WarmUp::HARDWARE.after(streak.seconds(begin)), 1e-3).held);
        assert!(device.now() - begin < 0.2, "{}", device.now() - begin);
        // A pause ends that.
        device.idle(1.0);
        assert_eq!(streak.seconds(device.now()), 0.0);
        let from = device.now();
        device.work(1e-3);
        streak.busy(from, device.now());
        assert!(streak.seconds(device.now()) < 0.01);
        assert_eq!(WarmUp::HARDWARE.after(0.0), WarmUp::HARDWARE);
        warm(&device, WarmUp::HARDWARE.after(streak.seconds(device.now())), 1e-3);
        assert!(device.work(1e-3) < 1.001e-3);
    }

    #[test]
    fn processors_pay_little() {
        for (of_call, most) in [(1e-5, 0.03), (1e-3, 0.03), (0.03, 0.07), (0.5, 0.51)] {
            let now = Cell::new(0.0);
            let Ok(Warm { .. }) = warm_up(
                WarmUp::PROCESSOR,
                || now.get(),
                |calls| {
                    let seconds = f64::from(calls) * of_call;
                    now.set(now.get() + seconds);
                    Ok::<_, Infallible>(seconds)
                },
            );
            assert!(now.get() <= most, "{of_call}: {}", now.get());
        }
    }

    #[test]
    fn a_rate_that_never_holds_ends_at_the_limit() {
        let (now, slower) = (Cell::new(0.0), Cell::new(1e-3));
        let Ok(warm) = warm_up(
            WarmUp::HARDWARE,
            || now.get(),
            |calls| {
                slower.set(slower.get() * 1.05);
                now.set(now.get() + f64::from(calls) * slower.get());
                Ok::<_, Infallible>(f64::from(calls) * slower.get())
            },
        );
        assert!(!warm.held && (3.0..4.0).contains(&now.get()), "{warm:?} {}", now.get());
        assert_eq!(warm_up(WarmUp::HARDWARE, || 0.0, |_| Err::<f64, _>("gone")), Err("gone"));
    }
}
