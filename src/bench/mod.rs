//! A device's ceilings, and the operators compared with them: the cases of `wattn bench` and of the criterion benches.
//!
//! A [`Suite`] measures how fast the machine copies and multiplies, then runs [`cases`] one by one: each result is compared with the f64
//! oracle before it is timed, and its time with the ceiling that limits it most. Hardware is kept busy while the CPU works, and everything
//! runs until its rate holds before it counts ([`WarmUp`]); [`Clocks`] show whether that was enough. The caller drives it, and may save
//! [`Suite::report`] after each case.
//!
//! ```
//! use wattn::bench::{Options, Scope, Suite, Target};
//!
//! let options = Options::new(Scope::Quick).filter(["prefill/8x1024"]).with_seconds_per_case(0.1);
//! let mut suite = Suite::new(|| Ok(Target::Cpu), &options)?;
//! while let Some(case) = suite.pending() {
//!     println!("{}", case.id());
//!     suite.run_next()?;
//! }
//! let report = suite.finish()?;
//! assert!(report.wrong().is_empty());
//! # Ok::<(), wattn::bench::BenchError>(())
//! ```

mod case;
mod ceilings;
mod check;
mod clock;
mod compare;
mod counts;
mod cpu;
mod crossover;
mod device;
mod error;
mod gpu;
mod inputs;
mod keep_warm;
mod kernels;
mod prepared;
mod processor;
mod pulse;
mod report;
mod rotation;
mod run;
mod samples;
mod steady;
mod stopwatch;
mod subject;
mod suite;
mod timing;
mod warm_up;

/// Items that tuning shares.
#[cfg(feature = "tune")]
pub(crate) mod tools {
    pub(crate) use super::check::{OracleRows, Verdict, bound, sampled_rows};
    pub(crate) use super::clock::{Clock, Stamps};
    pub(crate) use super::device::{Outputs, Uploaded};
    pub(crate) use super::inputs::Tensors;
    pub(crate) use super::rotation::Rotating;
    pub(crate) use super::samples::{sample_rounds, warm_parts};
    pub(crate) use super::stopwatch::Stopwatch;
    pub(crate) use super::subject::Subject;
    pub(crate) use super::timing::InTurns;
    #[cfg(test)]
    pub(crate) use super::timing::time_ways;
}

pub use case::{Case, Part, Scope, Series, cases};
#[doc(hidden)]
pub use ceilings::verify_kernel;
pub use ceilings::{Ceiling, CeilingKind};
pub use check::Check;
pub use clock::Elapsed;
pub use compare::{Compared, Comparison, Verdict, compare};
pub use counts::Counts;
pub use crossover::{Crossover, Line, lines};
pub use error::{BenchError, BenchResult};
pub use kernels::{BenchKernel, Scalar};
pub use report::{Caps, CaseResult, Machine, Outcome, PartResult, Rate, Report, SCHEMA, Timing, TimingMethod};
pub use run::{Runner, Target};
pub use samples::{Noise, QUIET, Samples, sample_in_turns};
pub use steady::{Clocks, Rotation};
pub use subject::PartPlan;
pub use suite::{Options, Suite};
pub use warm_up::WarmUp;
