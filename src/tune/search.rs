//! Searches from the default tiling for the fastest one around it. Independent of devices.

use core::fmt::Display;

use serde::{Deserialize, Serialize};

use super::{Candidate, TuneError, TuneResult};
use crate::Error;
use crate::bench::Samples;
use crate::bench::tools::{InTurns, Stopwatch, Subject, sample_rounds, warm_parts};

/// The outcome of a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial<T> {
    /// The tier and the tiling.
    #[serde(flatten)]
    pub candidate: Candidate<T>,
    /// The result of the trial.
    pub outcome: Outcome,
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Its result is right; seconds of a call, and their spread.
    Timed {
        /// The median of all samples.
        median: f64,
        /// The interquartile range over the median.
        spread: f64,
    },
    /// Its result is right, but its first call took too long for further calls.
    Slow {
        /// Seconds of the call.
        seconds: f64,
    },
    /// Its result is wrong, or differs between runs: it cannot win.
    Vetoed {
        /// The fault.
        reason: String,
    },
    /// The device does not take it.
    Refused {
        /// The device's message.
        reason: String,
    },
}

/// Limits of a search.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Effort {
    /// Seconds for a round of candidates.
    pub(super) seconds: f64,
    /// Candidates in all.
    pub(super) most: usize,
    /// Seconds that a call may take without tuning.
    pub(super) longest_call: f64,
    /// Candidates to skip, in their printed form.
    pub(super) avoid: Vec<String>,
    /// Seconds, on the subject's clock, after which no further candidate is begun.
    pub(super) last: f64,
}

impl Effort {
    /// Fails if a call without tuning takes longer than allowed.
    pub(super) fn allow(&self, seconds: f64) -> TuneResult<()> {
        if seconds > self.longest_call { Err(TuneError::Slow { seconds }) } else { Ok(()) }
    }
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found<T> {
    pub(super) best: Candidate<T>,
    /// Seconds of a call with the best, and with the plan without tuning: measured in turns in one run.
    pub(super) seconds: f64,
    pub(super) untuned_seconds: f64,
    pub(super) trials: Vec<Trial<T>>,
    /// Number of candidates that time did not suffice for; their neighbours are not counted.
    pub(super) left_out: usize,
}

/// The candidates of a problem.
pub(super) struct Space<'a, T> {
    /// The plan without tuning.
    pub(super) untuned: Candidate<T>,
    /// Further starting points.
    pub(super) starts: Vec<Candidate<T>>,
    /// The candidates one step away.
    pub(super) neighbours: Box<dyn Fn(Candidate<T>) -> Vec<Candidate<T>> + 'a>,
}

/// Candidates whose first call takes this many times as long as the best so far are not timed further.
const SLOW: f64 = 3.0;

/// The least share of the time that a candidate must save, however steady the samples are.
const LEAST_GAIN: f64 = 0.03;

/// A candidate that is compiled and known to be right.
struct Entrant<T, R> {
    candidate: Candidate<T>,
    ready: R,
}

/// Climbs from tiling to tiling: a candidate that beats the best so far by more than the noise becomes the next centre.
pub(super) fn search<S, T>(subject: &mut S, space: Space<'_, T>, effort: &Effort) -> TuneResult<Found<T>>
where
    S: Subject<Way = Candidate<T>>,
    T: Copy + PartialEq + Display,
{
    let Space { untuned, starts, neighbours } = space;
    let first = Entrant { candidate: untuned, ready: subject.prepare(untuned)? };
    // Before the check, which takes several calls. Some drivers compile during the first call.
    once(subject, &first)?;
    effort.allow(once(subject, &first)?)?;
    if let Some(outcome) = rejection(subject, &first)? {
        return Err(TuneError::Wrong { candidate: untuned.to_string(), reason: outcome.to_string() });
    }
    let mut trials = Vec::new();
    let mut best: Option<Entrant<T, S::Ready>> = None;
    let mut tried = vec![untuned];
    let mut left_out = 0;
    let mut frontier = starts;
    frontier.extend(neighbours(untuned));
    loop {
        let room = effort.most.saturating_sub(tried.len());
        let new =
            |candidate: &Candidate<_>| !tried.contains(candidate) && !effort.avoid.contains(&candidate.to_string());
        let mut round: Vec<_> = frontier.into_iter().filter(new).take(room).collect();
        if subject.watch().now() >= effort.last {
            left_out = round.len();
            break;
        }
        let holder = best.as_ref().unwrap_or(&first);
        let pace = once(subject, holder)?;
        let mut entrants = Vec::new();
        while !round.is_empty() && subject.watch().now() < effort.last {
            let candidate = round.remove(0);
            tried.push(candidate);
            let entrant = match subject.prepare(candidate) {
                Ok(ready) => Entrant { candidate, ready },
                Err(error) => {
                    trials.push(Trial { candidate, outcome: refusal(error, candidate)? });
                    continue;
                }
            };
            if let Some(outcome) = rejection(subject, &entrant)? {
                trials.push(Trial { candidate, outcome });
                continue;
            }
            let seconds = once(subject, &entrant)?;
            if seconds > SLOW * pace {
                trials.push(Trial { candidate, outcome: Outcome::Slow { seconds } });
            } else {
                entrants.push(entrant);
            }
        }
        let mut samples = compare(subject, holder, &entrants, effort.seconds)?.into_iter();
        let Some(of_holder) = samples.next() else { break };
        let mut winner: Option<(Entrant<T, S::Ready>, Samples)> = None;
        for (entrant, samples) in entrants.into_iter().zip(samples) {
            let outcome = Outcome::Timed { median: samples.median, spread: samples.spread };
            trials.push(Trial { candidate: entrant.candidate, outcome });
            let faster = winner.as_ref().is_none_or(|(_, best)| samples.median < best.median);
            if faster && beats(&samples, &of_holder) {
                winner = Some((entrant, samples));
            }
        }
        let Some((entrant, _)) = winner else {
            left_out = round.len();
            break;
        };
        // Candidates that time did not suffice for are still untried.
        frontier = round;
        frontier.extend(neighbours(entrant.candidate));
        best = Some(entrant);
    }
    // Times the best once more, side by side: the luckiest of many samples is not always the fastest.
    let last: Vec<_> = best.into_iter().collect();
    let samples = compare(subject, &first, &last, 2.0 * effort.seconds)?;
    let (mut seconds, untuned_seconds) = (samples[0].median, samples[0].median);
    let mut winner = untuned;
    if let Some((entrant, of_best)) = last.first().zip(samples.get(1)).filter(|(_, best)| beats(best, &samples[0])) {
        (winner, seconds) = (entrant.candidate, of_best.median);
    }
    Ok(Found { best: winner, seconds, untuned_seconds, trials, left_out })
}

/// The reason why a candidate must not win, from its results.
fn rejection<S: Subject, T: Copy + Display>(
    subject: &mut S,
    entrant: &Entrant<T, S::Ready>,
) -> TuneResult<Option<Outcome>> {
    match subject.check(&entrant.ready) {
        Ok(verdict) => Ok(verdict.fault.map(|reason| Outcome::Vetoed { reason })),
        Err(error) => refusal(error, entrant.candidate).map(Some),
    }
}

/// The outcome of a candidate after an error that concerns this candidate only.
fn refusal<T: Display>(error: Error, candidate: Candidate<T>) -> TuneResult<Outcome> {
    Ok(Outcome::Refused { reason: error_of(error, candidate)?.to_string() })
}

/// The error, if it concerns this candidate only; a lost device stops the search.
fn error_of<T: Display>(error: Error, candidate: Candidate<T>) -> TuneResult<Error> {
    match error {
        source @ Error::DeviceLost { .. } => Err(TuneError::Lost { candidate: candidate.to_string(), source }),
        other => Ok(other),
    }
}

/// Seconds of one call.
fn once<S: Subject, T: Copy + Display>(subject: &mut S, entrant: &Entrant<T, S::Ready>) -> TuneResult<f64> {
    let elapsed = subject.time(&entrant.ready, 1);
    elapsed.map(|elapsed| elapsed.seconds()).or_else(|error| Err(error_of(error, entrant.candidate)?.into()))
}

/// Samples of the holder, then of the entrants, taken in turns.
fn compare<S: Subject, T: Copy + Display>(
    subject: &mut S,
    holder: &Entrant<T, S::Ready>,
    entrants: &[Entrant<T, S::Ready>],
    seconds: f64,
) -> TuneResult<Vec<Samples>> {
    let all: Vec<_> = core::iter::once(holder).chain(entrants).collect();
    let ready: Vec<_> = all.iter().map(|entrant| &entrant.ready).collect();
    subject.watch().quietly(|| {
        let mut turns = InTurns::new(subject, &ready);
        let samples = warm_parts(&mut turns, ready.len())
            .and_then(|calls| sample_rounds(&mut turns, &calls, seconds * ready.len() as f64));
        samples.or_else(|error| Err(error_of(error, all[turns.running()].candidate)?.into()))
    })
}

/// Whether the difference exceeds the noise.
fn beats(new: &Samples, old: &Samples) -> bool {
    let noise = new.noise().max(old.noise()).max(LEAST_GAIN);
    new.median < old.median * (1.0 - noise)
}

impl Display for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Timed { median, spread } => write!(f, "{:.3} ms, spread {:.0} %", median * 1e3, spread * 1e2),
            Self::Slow { seconds } => write!(f, "slow: {:.3} ms", seconds * 1e3),
            Self::Vetoed { reason } => write!(f, "wrong: {reason}"),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tools::{Verdict, time_ways};
    use crate::bench::{Check, Counts, Elapsed, PartPlan, Rotation};
    use crate::{Result, Tier};

    /// Tilings are numbers, fastest at `fastest`; some are wrong, some are refused, one loses the device.
    #[derive(Default)]
    struct Fake {
        fastest: u32,
        wrong: Vec<u32>,
        refused: Vec<u32>,
        fatal: Option<u32>,
        fatal_when_timed: Option<u32>,
        timed: Vec<u32>,
        slope: f64,
        checked: Vec<u32>,
        now: f64,
    }

    impl Fake {
        fn new(fastest: u32) -> Self {
            Self { fastest, slope: 0.2, ..Self::default() }
        }
    }

    fn candidate(tiling: u32) -> Candidate<u32> {
        Candidate { tier: Tier::Baseline, tiling }
    }

    impl Subject for Fake {
        type Way = Candidate<u32>;
        type Ready = u32;
        type Watch = f64;

        fn prepare(&mut self, Candidate { tiling, .. }: Candidate<u32>) -> Result<u32> {
            if self.refused.contains(&tiling) {
                return Err(Error::Limit { limit: "x", needed: 2, available: 1 });
            }
            Ok(tiling)
        }

        fn check(&mut self, &ready: &u32) -> Result<Verdict> {
            self.checked.push(ready);
            if self.fatal == Some(ready) {
                return Err(Error::DeviceLost { message: "hung".to_owned() });
            }
            let fault = self.wrong.contains(&ready).then(|| "garbage".to_owned());
            let error = f64::from(u8::from(fault.is_some()));
            Ok(Verdict { check: Check { compared: 1, error, bound: 0.0 }, seconds: 0.0, fault })
        }

        fn time(&mut self, &ready: &u32, calls: u32) -> Result<Elapsed> {
            // The plan without tuning shows first how long calls take.
            assert!(ready == 10 || self.checked.contains(&ready), "{ready} is timed before it is checked");
            assert!(ready == 10 || !self.wrong.contains(&ready), "{ready} is wrong, and timed");
            // Not in the first call.
            if self.fatal_when_timed == Some(ready) && self.timed.contains(&ready) {
                return Err(Error::DeviceLost { message: "hung".to_owned() });
            }
            self.timed.push(ready);
            let wall = f64::from(calls) * (1.0 + self.slope * f64::from(ready.abs_diff(self.fastest)));
            self.now += wall;
            Ok(Elapsed { wall, device: None })
        }

        fn plan(&self, &ready: &u32) -> Result<PartPlan> {
            Ok(PartPlan { tier: None, tiling: Some(ready.to_string()), dispatches: 1.0, workspace_bytes: 0 })
        }

        fn counts(&self, _: &u32) -> Counts {
            Counts { bytes: 8, operations: 16 }
        }

        fn encode_seconds(&mut self, _: &u32) -> Result<Option<f64>> {
            Ok(None)
        }

        fn rotation(&self) -> Rotation {
            Rotation { sets: 1, bytes: 8 }
        }

        fn watch(&self) -> f64 {
            self.now
        }
    }

    fn space() -> Space<'static, u32> {
        let neighbours = |from: Candidate<u32>| [from.tiling - 1, from.tiling + 1].map(candidate).into();
        let starts = vec![candidate(10), candidate(100)];
        Space { untuned: candidate(10), starts, neighbours: Box::new(neighbours) }
    }

    fn effort(most: usize) -> Effort {
        Effort { seconds: 0.0, most, longest_call: 2.0, avoid: vec![], last: f64::INFINITY }
    }

    #[test]
    fn the_search_climbs_to_the_fastest() {
        let found = search(&mut Fake::new(13), space(), &effort(64)).unwrap();
        assert_eq!(found.best, candidate(13));
        assert!((found.untuned_seconds - 1.6).abs() < 1e-9 && (found.seconds - 1.0).abs() < 1e-9, "{found:?}");
        assert!(
            found.trials.iter().any(|subject| {
                subject.candidate == candidate(100) && matches!(subject.outcome, Outcome::Slow { .. })
            })
        );
        // Candidates end where they are to.
        let found = search(&mut Fake { slope: 0.1, ..Fake::new(19) }, space(), &effort(6)).unwrap();
        assert!(found.best.tiling < 16 && found.trials.len() < 7, "{found:?}");
    }

    #[test]
    fn a_searched_subject_is_timed_as_a_bench_does() {
        let mut fake = Fake::new(13);
        let ready = [10, 13].map(|tiling| fake.prepare(candidate(tiling)).unwrap());
        assert!(ready.iter().all(|ready| fake.check(ready).unwrap().check.passed()));
        let (samples, clocks) = time_ways(&mut fake, &[&ready[0], &ready[1]], 0.0).unwrap();
        assert!((samples[0].median - 1.6).abs() < 1e-9 && (samples[1].median - 1.0).abs() < 1e-9, "{samples:?}");
        assert_eq!((clocks.before, clocks.after), (1.0, 1.0));
    }

    #[test]
    fn a_wrong_candidate_never_wins() {
        let mut fake = Fake { wrong: vec![13], ..Fake::new(13) };
        let found = search(&mut fake, space(), &effort(64)).unwrap();
        assert_eq!(found.best, candidate(12));
        let vetoed = Trial { candidate: candidate(13), outcome: Outcome::Vetoed { reason: "garbage".to_owned() } };
        assert!(found.trials.contains(&vetoed), "{found:?}");
        // Candidates that the device does not take are skipped too.
        let found = search(&mut Fake { refused: vec![11], ..Fake::new(13) }, space(), &effort(64)).unwrap();
        assert_eq!(found.best, candidate(10));
        assert_eq!((found.seconds, found.untuned_seconds), (1.6, 1.6));
    }

    #[test]
    fn what_is_wrong_without_tuning_is_an_error() {
        let error = search(&mut Fake { wrong: vec![10], ..Fake::new(13) }, space(), &effort(64)).unwrap_err();
        assert!(matches!(error, TuneError::Wrong { .. }), "{error}");
        assert!(error.to_string().contains("garbage") && error.to_string().contains("baseline: 10"), "{error}");
    }

    #[test]
    fn what_takes_too_long_is_left_alone() {
        let error = search(&mut Fake::new(16), space(), &effort(64)).unwrap_err();
        assert!(matches!(error, TuneError::Slow { seconds } if seconds > 2.0), "{error}");
    }

    #[test]
    fn a_gain_within_the_noise_is_none() {
        let found = search(&mut Fake { slope: 0.01, ..Fake::new(12) }, space(), &effort(64)).unwrap();
        assert_eq!(found.best, candidate(10));
    }

    #[test]
    fn no_candidate_is_begun_when_the_time_is_over() {
        let all = search(&mut Fake::new(16), space(), &Effort { longest_call: 9.0, ..effort(64) }).unwrap();
        assert_eq!((all.best, all.left_out), (candidate(16), 0));
        let until = |last| {
            let mut fake = Fake::new(16);
            let found = search(&mut fake, space(), &Effort { longest_call: 9.0, last, ..effort(64) }).unwrap();
            assert!(fake.now < last + 60.0, "{last}: {}", fake.now); // a round that was begun, and the last comparison
            found
        };
        // Only the plan without tuning.
        let none = until(0.0);
        assert_eq!((none.best, none.trials.len(), none.left_out), (candidate(10), 0, 3));
        assert!(none.seconds > 0.0 && none.seconds == none.untuned_seconds);
        // One of the first three: the others are counted as left out.
        let one = until(8.0);
        assert_eq!((one.trials.len(), one.left_out), (1, 2), "{one:?}");
        // The best so far is kept.
        let some = until(100.0);
        assert!(some.best.tiling > 10 && some.best.tiling < 16 && some.left_out > 0, "{some:?}");
        assert!(some.seconds < some.untuned_seconds);
    }

    #[test]
    fn a_lost_device_says_with_what_and_can_be_gone_around() {
        let error = search(&mut Fake { fatal: Some(11), ..Fake::new(13) }, space(), &effort(64)).unwrap_err();
        let TuneError::Lost { candidate: fatal, .. } = error else { panic!("{error}") };
        let around = Effort { avoid: vec![fatal], ..effort(64) };
        let found = search(&mut Fake { fatal: Some(11), ..Fake::new(9) }, space(), &around).unwrap();
        assert_eq!(found.best, candidate(9));
        // In turns with others, later than its check.
        let error = search(&mut Fake { fatal_when_timed: Some(11), ..Fake::new(13) }, space(), &effort(64));
        let Err(TuneError::Lost { candidate: fatal, .. }) = error else { panic!("{error:?}") };
        assert_eq!(fatal, candidate(11).to_string());
    }
}
