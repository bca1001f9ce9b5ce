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
mod stopwatch;
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
    Ok(Tuned::new(AttentionClass::of(problem), search(&mut subject, &options.effort)?))
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
    Ok(Tuned::new(SelectionClass::of(problem), search(&mut subject, &options.effort)?))
}
