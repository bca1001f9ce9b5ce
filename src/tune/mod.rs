//! Finds the fastest tiling of a problem on a device by timing; a wrong one cannot win.
//!
//! [`attention`] and [`selection`] start from the plan without tuning, try every tier that the device has and the tilings around the best,
//! and stop when none is faster by more than the noise. Every candidate first computes a small problem with odd lengths, of which up to 512
//! rows are compared with the f64 oracle, and then the problem itself, twice: sampled rows against the oracle, all elements against the
//! plan without tuning, all bits of both runs. A candidate that fails cannot win.
//!
//! Results go into a [`TuningTable`], by device, driver and version of this library; [`Context::with_tuning`] makes plans use them. Without
//! it plans follow the rules alone, the same on every device with the same caps.
//!
//! ```no_run
//! use wattn::{AttentionPlan, AttentionProblem, AttentionShape, Context, ContextOptions, DType, Mask, tune};
//!
//! let context = Context::request(&ContextOptions::default()).wait()?;
//! let shape = AttentionShape {
//!     batch_size: 1, seq_len_q: 1, seq_len_kv: 16384,
//!     num_q_heads: 32, num_kv_heads: 8, head_dim: 128, head_dim_v: 128,
//! };
//! let problem = AttentionProblem::new(shape, DType::F16).with_mask(Mask::Causal);
//! let tuned = tune::attention(&context, &problem, &tune::Options::default())?;
//! println!("{}, {:.2} times as fast", tuned.entry.candidate, tuned.entry.speedup());
//!
//! let (mut table, key) = (tune::TuningTable::new(), tune::DeviceKey::of(&context));
//! table.set_attention(&key, tuned.entry);
//! let context = context.with_tuning(table.tuning(&key));
//! assert!(AttentionPlan::new(&problem, context.caps())?.is_tuned());
//! # Ok::<(), wattn::tune::TuneError>(())
//! ```

mod attention;
mod candidates;
mod error;
mod inputs;
mod search;
mod selection;
mod table;

pub use candidates::{Candidate, attention_neighbours, attention_starts, selection_neighbours, selection_starts};
pub use error::{TuneError, TuneResult};
pub use search::{Outcome, Trial};
pub use table::{DeviceEntries, DeviceKey, Entry, SCHEMA, TuningTable};

use attention::AttentionSubject;
use search::{Effort, Found, search};
use selection::SelectionSubject;

use crate::{
    AttentionClass, AttentionProblem, Context, SelectionClass, SelectionProblem, SelectionTiling, Tiling, Tuning,
};

/// The estimate of a call's time may be too high by this factor.
const EXPECTATION: f64 = 4.0;

/// Limits of a tuning, and candidates to avoid.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    effort: Effort,
    sabotage: Option<(&'static str, u32)>,
}

impl Default for Options {
    /// A tenth of a second for each candidate of a round, and 64 candidates in all.
    fn default() -> Self {
        Self {
            effort: Effort {
                seconds: 0.1,
                most: 64,
                longest_call: f64::INFINITY,
                avoid: Vec::new(),
                last: f64::INFINITY,
            },
            sabotage: None,
        }
    }
}

impl Options {
    /// Target seconds for timing each candidate of a round.
    #[must_use]
    pub const fn with_seconds(mut self, seconds: f64) -> Self {
        self.effort.seconds = seconds;
        self
    }

    /// Most candidates. Further ones are not tried.
    #[must_use]
    pub const fn with_most_candidates(mut self, most: usize) -> Self {
        self.effort.most = most;
        self
    }

    /// Seconds after which no further candidate is begun: the best so far counts, and [`Entry::left_out`] is the number of untried ones. The
    /// plan without tuning is always compiled, checked and timed.
    #[must_use]
    pub const fn with_most_seconds(mut self, seconds: f64) -> Self {
        self.effort.last = seconds;
        self
    }

    /// Gives up on problems whose call without tuning takes longer: [`TuneError::Slow`].
    #[must_use]
    pub const fn with_longest_call(mut self, seconds: f64) -> Self {
        self.effort.longest_call = seconds;
        self
    }

    /// Skips a candidate, given in its printed form, such as one that a device was lost with: see [`TuneError::Lost`].
    #[must_use]
    pub fn with_avoid(mut self, candidate: impl Into<String>) -> Self {
        self.effort.avoid.push(candidate.into());
        self
    }

    /// Replaces a constant in the kernels of every candidate but the plan without tuning. For tests that make kernels wrong.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_sabotage(mut self, constant: &'static str, value: u32) -> Self {
        self.sabotage = Some((constant, value));
        self
    }
}

/// The fastest candidate, and the outcomes of all others.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned<C, T> {
    /// The entry for a [`TuningTable`].
    pub entry: Entry<C, T>,
    /// The trials in order, without the plan without tuning.
    pub trials: Vec<Trial<T>>,
}

impl<C, T> Tuned<C, T> {
    fn new(class: C, found: Found<T>) -> Self {
        let Found { best: candidate, seconds, untuned_seconds, trials, left_out } = found;
        Self { entry: Entry { class, candidate, seconds, untuned_seconds, left_out }, trials }
    }

    /// The candidates that gave wrong results.
    pub fn vetoed(&self) -> impl Iterator<Item = &Trial<T>> {
        self.trials.iter().filter(|trial| matches!(trial.outcome, Outcome::Vetoed { .. }))
    }
}

/// Finds the fastest tiling of attention. Calls also write the lse, and get generated lists where the problem takes lists.
///
/// # Errors
/// The errors of [`AttentionPlan::new`](crate::AttentionPlan::new); [`Error::Invalid`](crate::Error::Invalid) for a problem
/// without rows or keys; [`TuneError::Wrong`] where the plan without tuning is wrong already, and [`TuneError::Lost`].
///
/// # Cost
/// Allocates the problem's tensors, compiles every candidate twice, submits and waits: seconds to minutes.
pub fn attention(
    ctx: &Context,
    problem: &AttentionProblem,
    options: &Options,
) -> TuneResult<Tuned<AttentionClass, Tiling>> {
    let ctx = ctx.with_tuning(Tuning::new());
    let mut subject = AttentionSubject::new(&ctx, problem, options)?;
    let space = subject.space();
    Ok(Tuned::new(AttentionClass::of(problem), search(&mut subject, space, &options.effort)?))
}

/// Finds the fastest tiling of a selection that computes every stage. Lists are compared with the oracle's, entry by entry.
///
/// # Errors
/// The errors of [`attention`], with [`SelectionPlan::new`](crate::SelectionPlan::new) in place of attention's.
///
/// # Cost
/// The cost of [`attention`].
pub fn selection(
    ctx: &Context,
    problem: &SelectionProblem,
    options: &Options,
) -> TuneResult<Tuned<SelectionClass, SelectionTiling>> {
    let ctx = ctx.with_tuning(Tuning::new());
    let mut subject = SelectionSubject::new(&ctx, problem, options)?;
    let space = subject.space();
    Ok(Tuned::new(SelectionClass::of(problem), search(&mut subject, space, &options.effort)?))
}

#[cfg(test)]
mod tests {
    use super::search::Space;
    use super::*;
    use crate::bench::tools::{Clock, Stamps, Subject, Verdict, time_ways};
    use crate::bench::{Check, Counts, Elapsed, PartPlan, Rotation};
    use crate::{
        Bound, ContextOptions, DType, HostTensor, Layout, Pool, PoolArgs, PoolPlan, PoolProblem, Pooling, Result,
        SoftwareAdapters, TensorView, TensorViewMut, Tier, cpu,
    };

    /// The one way to cut a pooling.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Whole;

    impl core::fmt::Display for Whole {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("whole")
        }
    }

    /// An operator that no case and no command knows.
    struct PoolSubject {
        clock: Clock,
        problem: PoolProblem,
        k: wgpu::Buffer,
        summaries: wgpu::Buffer,
        expected: Vec<f64>,
        /// A tier whose results count as wrong.
        wrong: Option<Tier>,
    }

    impl PoolSubject {
        fn new(ctx: &Context, problem: PoolProblem, wrong: Option<Tier>) -> Result<Self> {
            let mut k = HostTensor::zeros(problem.shape());
            k.data_mut().iter_mut().zip(0u8..251).for_each(|(x, n)| *x = f32::from(n) - 125.0);
            Ok(Self {
                clock: Clock::new(ctx, Stamps::Leave)?,
                k: ctx.upload_checked("wattn.test.k", bytemuck::cast_slice(k.data()))?,
                summaries: ctx.upload_checked("wattn.test.summaries", &[0xff; 4 * 2 * 8 * 32])?,
                expected: cpu::oracle::pool(&problem, &k, None)?,
                problem,
                wrong,
            })
        }

        fn view(&self) -> TensorView<'_> {
            let [batch, seq, heads, dim] = self.problem.summaries_shape();
            TensorView::new(&self.summaries, DType::F32, Layout::seq_major(batch, seq, heads, dim))
        }
    }

    impl Subject for PoolSubject {
        type Way = Candidate<Whole>;
        type Ready = (PoolPlan, Bound);
        type Watch = Clock;

        fn prepare(&mut self, Candidate { tier, .. }: Candidate<Whole>) -> Result<Self::Ready> {
            let plan = PoolPlan::with_tier(&self.problem, self.clock.context().caps(), tier)?;
            let [batch, seq, heads, dim] = self.problem.shape();
            let k = TensorView::new(&self.k, DType::F32, Layout::seq_major(batch, seq, heads, dim));
            let TensorView { buffer, dtype, layout } = self.view();
            let args = PoolArgs::new(k, TensorViewMut::new(buffer, dtype, layout));
            let bound = Pool::prepare(self.clock.context(), &plan)?.bind(args)?;
            Ok((plan, bound))
        }

        fn check(&mut self, ready: &Self::Ready) -> Result<Verdict> {
            let elapsed = self.time(ready, 1)?;
            let got = self.clock.context().read::<f32>(self.view()).wait()?;
            let differ = got.data().iter().zip(&self.expected).filter(|(got, expected)| f64::from(**got) != **expected);
            let differ = differ.count() + usize::from(self.wrong == Some(ready.0.tier()));
            let compared = self.expected.len() as u64;
            Ok(Verdict::of(Check { compared, error: differ as f64, bound: 0.0 }, elapsed))
        }

        fn time(&mut self, (_, bound): &Self::Ready, calls: u32) -> Result<Elapsed> {
            self.clock.time_calls(calls, &mut 0, |pass, _| bound.encode_in(pass))
        }

        fn plan(&self, (plan, _): &Self::Ready) -> Result<PartPlan> {
            let tier = Some(plan.tier().to_string());
            Ok(PartPlan { tier, tiling: Some(Whole.to_string()), dispatches: 1.0, workspace_bytes: 0 })
        }

        fn counts(&self, _: &Self::Ready) -> Counts {
            let elements: u64 = self.problem.shape().iter().map(|&axis| u64::from(axis)).product();
            Counts { bytes: 4 * (elements + self.expected.len() as u64), operations: 2 * elements }
        }

        fn encode_seconds(&mut self, (_, bound): &Self::Ready) -> Result<Option<f64>> {
            self.clock.time_encoding(|pass| bound.encode_in(pass)).map(Some)
        }

        fn rotation(&self) -> Rotation {
            Rotation { sets: 1, bytes: self.k.size() }
        }

        fn watch(&self) -> Clock {
            self.clock.clone()
        }
    }

    #[test]
    fn an_operator_that_is_a_subject_is_benched_and_tuned() {
        let options = ContextOptions::default().with_software(SoftwareAdapters::Accept);
        let ctx = Context::request(&options).wait().expect("a GPU adapter, a software one will do");
        let problem = PoolProblem::new([1, 61, 2, 32], DType::F32, 8, Pooling::Max);
        let tiers: Vec<Tier> = Tier::ALL.into_iter().filter(|&tier| ctx.caps().require(tier).is_ok()).collect();
        let untuned = Candidate { tier: tiers[0], tiling: Whole };
        let mut subject = PoolSubject::new(&ctx, problem, None).unwrap();
        // As the suite does: checked, timed in turns, encoded.
        let ready = subject.prepare(untuned).unwrap();
        assert_eq!(subject.check(&ready).unwrap().fault, None);
        let (samples, clocks) = time_ways(&mut subject, &[&ready, &ready], 0.01).unwrap();
        assert!(samples.len() == 2 && samples.iter().all(|samples| samples.median > 0.0), "{samples:?}");
        assert!(clocks.before > 0.0 && clocks.after > 0.0);
        assert!(subject.encode_seconds(&ready).unwrap().unwrap() > 0.0);
        assert_eq!(subject.plan(&ready).unwrap().tier, Some(tiers[0].to_string()));
        assert_eq!(subject.counts(&ready).bytes, 4 * 2 * 32 * (61 + 8));
        // As tuning does: the tiers of the device around the first, of which the last is wrong.
        let wrong = tiers.last().copied().filter(|_| tiers.len() > 1);
        let mut subject = PoolSubject::new(&ctx, problem, wrong).unwrap();
        let starts = tiers.iter().map(|&tier| Candidate { tier, tiling: Whole }).collect();
        let space = Space { untuned, starts, neighbours: Box::new(|_| Vec::new()) };
        let effort = Options::default().with_seconds(0.01).effort;
        let found = search(&mut subject, space, &effort).unwrap();
        assert_eq!(found.trials.len(), tiers.len() - 1);
        for trial in &found.trials {
            let vetoed = matches!(&trial.outcome, Outcome::Vetoed { reason } if reason.contains("off by 1"));
            assert_eq!(vetoed, Some(trial.candidate.tier) == wrong, "{trial:?}");
        }
        assert_ne!(Some(found.best.tier), wrong);
    }
}
