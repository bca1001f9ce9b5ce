//! Runs the cases one by one within a budget, and continues after a loss of the device.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::ceilings::{self, Ceiling, CeilingKind};
use super::check::Verdict;
use super::clock::{Clock, Stamps};
use super::crossover::crossovers;
use super::report::{CaseResult, Machine, Outcome, PartResult, Rate, Report, SCHEMA, Timing, TimingMethod};
use super::run::CaseSubject;
use super::samples::Noise;
use super::timing::time_ways;
use super::{BenchError, BenchResult, Case, Counts, Part, Runner, Scope, Series, Target, cases};
use crate::{DType, Error, Result, Tier};

/// Options of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    scope: Scope,
    filter: Vec<String>,
    seconds_per_case: f64,
    longest_call: f64,
    longest_run: Option<f64>,
    commit: Option<String>,
}

impl Options {
    /// All cases of a scope.
    #[must_use]
    pub const fn new(scope: Scope) -> Self {
        let (seconds_per_case, longest_call, longest_run) = match scope {
            Scope::Quick => (1.2, 0.5, Some(150.0)),
            Scope::Full => (5.0, 2.0, None),
        };
        Self { scope, filter: Vec::new(), seconds_per_case, longest_call, longest_run, commit: None }
    }

    /// Only cases with one of these in their [`Case::id`].
    #[must_use]
    pub fn filter<T: Into<String>>(mut self, parts_of_ids: impl IntoIterator<Item = T>) -> Self {
        self.filter = parts_of_ids.into_iter().map(Into::into).collect();
        self
    }

    /// Target seconds for timing a case.
    #[must_use]
    pub const fn with_seconds_per_case(mut self, seconds: f64) -> Self {
        self.seconds_per_case = seconds;
        self
    }

    /// Limit on a single call: longer parts are skipped, with that reason.
    #[must_use]
    pub const fn with_longest_call(mut self, seconds: f64) -> Self {
        self.longest_call = seconds;
        self
    }

    /// Seconds after which no further case is begun: the remaining ones are reported as such, and a resumed run does them.
    #[must_use]
    pub const fn with_longest_run(mut self, seconds: f64) -> Self {
        self.longest_run = Some(seconds);
        self
    }

    /// The build's commit in the report.
    #[must_use]
    pub fn with_commit(mut self, commit: impl Into<String>) -> Self {
        self.commit = Some(commit.into());
        self
    }
}

/// A run of the cases. Driven by the caller: see [the module](super).
pub struct Suite {
    open: Box<dyn FnMut() -> Result<Target>>,
    target: Target,
    /// `None` on the CPU.
    clock: Option<Clock>,
    options: Options,
    pending: VecDeque<Case>,
    /// By series and part: the actual time over the time that the ceilings would allow, as last seen.
    pace: HashMap<(Series, Part), f64>,
    begin: Instant,
    report: Report,
}

/// The same before any was seen: low, so that the part is tried.
const FIRST_PACE: f64 = 3.0;

/// Calls may take this many times the expected time.
const TOLERATED: f64 = 2.0;

impl Suite {
    /// Opens the target and measures its ceilings. A device that is lost later is opened again. Hardware is kept busy from here until
    /// the suite is dropped.
    ///
    /// # Errors
    /// The errors of `open`; [`BenchError::NoCase`]; [`BenchError::Ceiling`] where a device computes wrong results.
    ///
    /// # Cost
    /// Some seconds.
    pub fn new(open: impl FnMut() -> Result<Target> + 'static, options: &Options) -> BenchResult<Self> {
        let (mut open, begin): (Box<dyn FnMut() -> Result<Target>>, _) = (Box::new(open), Instant::now());
        let pending = pending(options, &[])?;
        let target = open()?;
        let (clock, timing) = timing(&target)?;
        let report = Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: options.commit.clone(),
            scope: options.scope,
            filter: options.filter.clone(),
            machine: Machine::of(&target),
            timing,
            ceilings: ceilings::measure(clock.as_ref())?,
            cases: Vec::new(),
            lost_devices: 0,
            crossovers: Vec::new(),
            noise: None,
        };
        Ok(Self { open, target, clock, options: options.clone(), pending, pace: HashMap::new(), begin, report })
    }

    /// Resumes a report: runs the cases that it lacks, or that failed in it, with the report's ceilings.
    ///
    /// # Errors
    /// [`BenchError::Resume`] for a report of another version, machine or choice of cases, and the errors of [`Suite::new`].
    pub fn resume(
        open: impl FnMut() -> Result<Target> + 'static,
        options: &Options,
        mut report: Report,
    ) -> BenchResult<Self> {
        let (mut open, begin): (Box<dyn FnMut() -> Result<Target>>, _) = (Box::new(open), Instant::now());
        agree("schema", &report.schema, &SCHEMA)?;
        agree("version", &report.version, &env!("CARGO_PKG_VERSION").to_owned())?;
        agree("scope", &report.scope, &options.scope)?;
        agree("filter", &report.filter, &options.filter)?;
        let target = open()?;
        let mut machine = Machine::of(&target);
        // Older reports do not tell.
        machine.processor = report.machine.processor.as_ref().and(machine.processor);
        agree("machine", &report.machine, &machine)?;
        let (clock, timing) = timing(&target)?;
        agree("way of timing", &report.timing.method, &timing.method)?;
        report.cases.retain(|case| !case.unfinished());
        (report.noise, report.commit) = (None, options.commit.clone());
        let pending = pending(options, &report.cases)?;
        Ok(Self { open, target, clock, options: options.clone(), pending, pace: HashMap::new(), begin, report })
    }

    /// The case that [`run_next`](Self::run_next) runs; `None` when all are done.
    #[must_use]
    pub fn pending(&self) -> Option<&Case> {
        self.pending.front()
    }

    /// Number of remaining cases.
    #[must_use]
    pub fn num_pending(&self) -> usize {
        self.pending.len()
    }

    /// The report so far.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Checks and times the next case. If the device is lost, opens it again and repeats the case once; if it is lost again, the case fails
    /// in the report. `None` when all are done.
    ///
    /// # Errors
    /// The errors of opening the device again. The case is then still pending.
    pub fn run_next(&mut self) -> BenchResult<Option<&CaseResult>> {
        let Some(case) = self.pending.front().cloned() else { return Ok(None) };
        if let Some(longest) = self.options.longest_run.filter(|&longest| self.begin.elapsed().as_secs_f64() > longest)
        {
            let late = Outcome::OutOfTime(format!("the run may take {longest} s, and they are over"));
            self.report.cases.push(without_results(&case, &case, &late));
            self.pending.pop_front();
            return Ok(self.report.cases.last());
        }
        let result = match self.run_case(&case) {
            Ok(result) => result,
            Err(error) => {
                self.reopen(error)?;
                match self.run_case(&case) {
                    Ok(result) => result,
                    Err(error) => {
                        let failed = Outcome::Failed(format!("twice: {}", self.reopen(error)?));
                        without_results(&case, &case, &failed)
                    }
                }
            }
        };
        self.pending.pop_front();
        self.report.cases.push(result);
        Ok(self.report.cases.last())
    }

    /// Measures all ceilings once more and completes the report. It lacks cases that are still pending.
    ///
    /// # Errors
    /// The device's errors.
    pub fn finish(mut self) -> BenchResult<Report> {
        for again in ceilings::measure(self.clock.as_ref())? {
            for ceiling in self.report.ceilings.iter_mut().filter(|ceiling| ceiling.kind == again.kind) {
                ceiling.measured_again(again.rate);
            }
        }
        self.report.settle();
        let drifts = self.report.ceilings.iter().filter_map(Ceiling::drift);
        let drift = drifts.max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0);
        let parts = self.report.cases.iter().flat_map(|case| &case.parts);
        let timings: Vec<_> = parts.filter_map(|part| part.samples.as_ref()).collect();
        let clocks: Vec<_> = self.report.cases.iter().filter_map(|case| case.clocks).collect();
        self.report.noise = Some(Noise::new(&timings, drift, &clocks));
        self.report.crossovers = crossovers(&self.report.cases);
        Ok(self.report)
    }

    /// Opens a lost device again, and returns the message about the loss. Any other error is the run's.
    fn reopen(&mut self, error: Error) -> BenchResult<String> {
        if !is_loss(&error) {
            return Err(error.into());
        }
        self.report.lost_devices += 1;
        // The thread that keeps the device busy must end before there is another device.
        self.clock = None;
        self.target = (self.open)()?;
        agree("machine", &self.report.machine, &Machine::of(&self.target))?;
        let method = self.report.timing.method;
        let stamps = match method {
            TimingMethod::Timestamps => Stamps::Take,
            TimingMethod::WallClock => Stamps::Leave,
        };
        self.clock = clock(&self.target, stamps)?;
        Ok(error.to_string())
    }

    /// Fails if the device is lost, or refuses work that it accepted before.
    fn run_case(&mut self, case: &Case) -> Result<CaseResult> {
        let fitted = match &self.target {
            Target::Cpu => case.clone(),
            Target::Gpu(context) => case.fitted(context.caps()),
        };
        let mut result = CaseResult::new(case, &fitted);
        let too_long: Vec<Option<Outcome>> = fitted.parts().iter().map(|&part| self.too_long(&fitted, part)).collect();
        if too_long.iter().all(Option::is_some) {
            for (&part, outcome) in fitted.parts().iter().zip(too_long.into_iter().flatten()) {
                result.parts.push(PartResult::without_result(part, outcome, Counts::new(&fitted, part, None)));
            }
            return Ok(result);
        }
        let mut runner = match Runner::with_clock(&fitted, self.clock.as_ref()) {
            Ok(runner) => runner,
            Err(error) => return Ok(without_results(case, &fitted, &refused(error)?)),
        };
        for (&part, too_long) in fitted.parts().iter().zip(too_long) {
            let outcome = match too_long {
                Some(outcome) => PartResult::without_result(part, outcome, runner.counts(part)),
                None => match self.check(&fitted, part, runner.subject()) {
                    Ok(checked) => checked,
                    Err(error) => PartResult::without_result(part, refused(error)?, runner.counts(part)),
                },
            };
            result.parts.push(outcome);
        }
        self.measure(&fitted, runner.subject(), &mut result)?;
        Ok(result)
    }

    /// Whether a call would probably exceed the limit, judging by the last case of the series.
    fn too_long(&self, case: &Case, part: Part) -> Option<Outcome> {
        let bound = self.bound(case, Counts::new(case, part, None));
        // Dense attention of one series allows an estimate for another.
        let elsewhere = || self.pace.iter().filter(|((_, of), _)| *of == part).map(|(_, &pace)| pace).reduce(f64::min);
        let pace = self.pace.get(&(case.series(), part)).copied().or_else(elsewhere).unwrap_or(FIRST_PACE);
        let (expected, allowed) = (bound * pace, self.options.longest_call);
        (expected > allowed).then(|| {
            Outcome::Skipped(format!("a call would take about {expected:.1} s here, more than the {allowed} s it may"))
        })
    }

    /// Seconds that the ceilings would allow.
    fn bound(&self, case: &Case, counts: Counts) -> f64 {
        self.rate(case, counts, 1.0).share.unwrap_or(0.0)
    }

    /// Compared with the ceilings of copies and of the arithmetic that the kernels use: sums are f32 whatever is stored, and products too,
    /// except on matrix units.
    fn rate(&self, case: &Case, counts: Counts, seconds: f64) -> Rate {
        let matrices = self.target.attention_tier(case.problem()).is_some_and(Tier::matrix);
        let kind = if matrices { CeilingKind::Matrix } else { CeilingKind::F32 };
        let arithmetic = self.report.ceiling(kind).map(|rate| (kind, rate));
        Rate::new(counts, seconds, self.report.ceiling(CeilingKind::Copy), arithmetic)
    }

    fn check(&mut self, case: &Case, part: Part, subject: &mut CaseSubject) -> Result<PartResult> {
        let ready = subject.prepare(part)?;
        let Verdict { check, mut seconds, fault } = subject.check(&ready)?;
        let allowed = self.options.longest_call;
        // The first call may have waited for a compiler.
        if seconds > allowed {
            seconds = subject.time(&ready, 1)?.seconds();
        }
        let counts = subject.counts(&ready);
        let bound = self.bound(case, counts);
        self.pace.insert((case.series(), part), seconds / bound.max(f64::MIN_POSITIVE));
        let outcome = if let Some(fault) = fault {
            Outcome::Wrong(fault)
        } else if seconds > TOLERATED * allowed {
            Outcome::Checked(format!("a call takes {seconds:.1} s here, more than the {allowed} s it may"))
        } else if self.report.machine.software && case.problem().dtype() == DType::F16 {
            Outcome::Checked("software devices convert f16 one by one, which would say nothing".to_owned())
        } else {
            Outcome::Measured
        };
        let plan = Some(subject.plan(&ready)?);
        Ok(PartResult { plan, check: Some(check), ..PartResult::without_result(part, outcome, counts) })
    }

    fn measure(&mut self, case: &Case, subject: &mut CaseSubject, result: &mut CaseResult) -> Result<()> {
        let timed = |part: &PartResult| (part.outcome == Outcome::Measured).then_some(part.part);
        let parts: Vec<Part> = result.parts.iter().filter_map(timed).collect();
        if parts.is_empty() {
            return Ok(());
        }
        let ready = parts.iter().map(|&part| subject.prepare(part)).collect::<Result<Vec<_>>>()?;
        let (all, clocks) = time_ways(subject, &ready.iter().collect::<Vec<_>>(), self.options.seconds_per_case)?;
        result.clocks = Some(clocks);
        result.rotation = Some(subject.rotation());
        for ((part, ready), samples) in parts.into_iter().zip(&ready).zip(all) {
            let counts = subject.counts(ready);
            let host_encode_seconds = subject.encode_seconds(ready)?;
            result.part(part).into_iter().for_each(|of| self.reach(&result.id, of, counts, samples.min));
            let rate = self.rate(case, counts, samples.median);
            if let Some(share) = rate.share.filter(|&share| share > 0.0) {
                self.pace.insert((result.series, part), 1.0 / share);
            }
            for to in result.parts.iter_mut().filter(|to| to.part == part) {
                (to.bytes, to.operations) = (counts.bytes, counts.operations);
                (to.samples, to.rate) = (Some(samples.clone()), Some(rate));
                to.host_encode_seconds = host_encode_seconds;
            }
        }
        Ok(())
    }

    /// A ceiling is never below the best rate of a part.
    fn reach(&mut self, id: &str, part: &PartResult, counts: Counts, seconds: f64) {
        let by = || format!("{id}: {}", part.part.name());
        let reached = [(CeilingKind::Copy, counts.bytes), (part.arithmetic(), counts.operations)];
        for (kind, amount) in reached {
            for ceiling in self.report.ceilings.iter_mut().filter(|ceiling| ceiling.kind == kind) {
                ceiling.reach(amount as f64 / seconds, by);
            }
        }
    }
}

impl core::fmt::Debug for Suite {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Suite").field("target", &self.target).field("options", &self.options).finish_non_exhaustive()
    }
}

fn timing(target: &Target) -> BenchResult<(Option<Clock>, Timing)> {
    let (stamps, note) = match target {
        Target::Cpu => (Stamps::Leave, "on the CPU nothing is encoded".to_owned()),
        Target::Gpu(context) => ceilings::stamps_for(context)?,
    };
    let method = match stamps {
        Stamps::Take => TimingMethod::Timestamps,
        Stamps::Leave => TimingMethod::WallClock,
    };
    Ok((clock(target, stamps)?, Timing { method, note }))
}

/// A clock that keeps the target's device warm; `None` on the CPU.
fn clock(target: &Target, stamps: Stamps) -> Result<Option<Clock>> {
    match target {
        Target::Cpu => Ok(None),
        Target::Gpu(context) => Ok(Some(Clock::new(context, stamps)?.kept_warm()?)),
    }
}

fn pending(options: &Options, done: &[CaseResult]) -> BenchResult<VecDeque<Case>> {
    let mut pending: VecDeque<Case> = cases(options.scope).into();
    pending.retain(|case| options.filter.is_empty() || options.filter.iter().any(|part| case.id().contains(part)));
    if pending.is_empty() {
        return Err(BenchError::NoCase { filter: options.filter.join(", ") });
    }
    pending.retain(|case| done.iter().all(|done| done.id != case.id()));
    Ok(pending)
}

fn agree<T: core::fmt::Debug + PartialEq>(field: &'static str, recorded: &T, now: &T) -> BenchResult<()> {
    if recorded == now {
        return Ok(());
    }
    Err(BenchError::Resume { field, recorded: format!("{recorded:?}"), now: format!("{now:?}") })
}

const fn is_loss(error: &Error) -> bool {
    matches!(error, Error::DeviceLost { .. } | Error::Poll(_) | Error::Map(_))
}

/// The outcome of a part after an error; a loss of the device is not the part's fault.
fn refused(error: Error) -> Result<Outcome> {
    match error {
        lost if is_loss(&lost) => Err(lost),
        Error::Limit { .. } | Error::OutOfMemory { .. } => Ok(Outcome::Skipped(error.to_string())),
        // The forced tier does not take this problem.
        Error::Argument { argument: "tier", .. } => Ok(Outcome::Skipped(error.to_string())),
        Error::Blocks { .. } => Ok(Outcome::Wrong(error.to_string())),
        _ => Ok(Outcome::Failed(error.to_string())),
    }
}

fn without_results(asked: &Case, fitted: &Case, outcome: &Outcome) -> CaseResult {
    let mut result = CaseResult::new(asked, fitted);
    for &part in fitted.parts() {
        let counts = Counts::new(fitted, part, None);
        result.parts.push(PartResult::without_result(part, outcome.clone(), counts));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_not_the_parts_fault() {
        assert!(refused(Error::DeviceLost { message: "gone".to_owned() }).is_err());
        let limit = Error::Limit { limit: "max_buffer_size", needed: 2, available: 1 };
        assert!(matches!(refused(limit), Ok(Outcome::Skipped(reason)) if reason.contains("max_buffer_size")));
        let wrong = Error::Validation { during: "x", message: "y".to_owned() };
        assert!(matches!(refused(wrong), Ok(Outcome::Failed(_))));
    }
}
