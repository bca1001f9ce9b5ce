//! A case with its inputs, ready to run.

use super::check::Check;
use super::clock::{Clock, Elapsed, Stamps};
use super::cpu::CpuRun;
use super::gpu::GpuRun;
use super::inputs::Tensors;
use super::stopwatch::Watch;
use super::subject::{PartPlan, Subject};
use super::{Case, Counts, Part, Rotation};
use crate::{AttentionPlan, AttentionProblem, Context, DType, Result, Tier};

/// Where cases run.
#[derive(Clone, Debug)]
pub enum Target {
    /// The CPU path.
    Cpu,
    /// A device; [`Context::with_tier`] holds its kernels to a tier.
    Gpu(Context),
}

impl Target {
    /// The tier of attention; none on the CPU.
    pub(super) fn attention_tier(&self, problem: &AttentionProblem) -> Option<Tier> {
        match self {
            Self::Cpu => None,
            Self::Gpu(context) => Some(AttentionPlan::best_tier(problem, context.caps())),
        }
    }
}

/// A case with its inputs, compiled and bound.
///
/// ```
/// use wattn::bench::{Case, Part, Runner, Series, Target};
/// use wattn::DType;
/// let case = Case::dense(Series::Prefill, [2, 1, 16, 64], 32, DType::F32);
/// let mut runner = Runner::new(&Target::Cpu, &case)?;
/// assert!(runner.check(Part::Dense)?.passed());
/// println!("{} s", runner.run(Part::Dense, 10)?.seconds() / 10.0);
/// # Ok::<(), wattn::Error>(())
/// ```
pub struct Runner {
    case: Case,
    subject: Box<CaseSubject>,
}

/// The parts of a case on a target.
pub(super) type CaseSubject = dyn Subject<Way = Part, Ready = Part, Watch = Watch>;

impl Runner {
    /// Makes inputs, compiles and binds.
    ///
    /// # Errors
    /// The errors of the plans, of `prepare` and of `bind`: [`Error::Limit`](crate::Error::Limit) where the device is too small.
    ///
    /// # Cost
    /// Allocates inputs and outputs, on the host and on the device; compiles on a cache miss.
    pub fn new(target: &Target, case: &Case) -> Result<Self> {
        let clock = match target {
            Target::Cpu => None,
            Target::Gpu(context) => Some(Clock::new(context, Stamps::Take)?),
        };
        Self::with_clock(case, clock.as_ref())
    }

    /// The clock is one of the target's device; none on the CPU.
    pub(super) fn with_clock(case: &Case, clock: Option<&Clock>) -> Result<Self> {
        let shape = case.problem().shape();
        case.problem().validate()?;
        let tensors = Tensors::random([shape.q(), shape.k(), shape.v()]);
        let subject: Box<CaseSubject> = match (clock, case.problem().dtype()) {
            (Some(clock), _) => Box::new(GpuRun::new(clock, case, tensors)?),
            (None, DType::F32) => Box::new(CpuRun::<f32>::new(case, tensors)),
            (None, DType::F16) => Box::new(CpuRun::<half::f16>::new(case, tensors)),
            (None, DType::BF16) => Box::new(CpuRun::<half::bf16>::new(case, tensors)),
        };
        Ok(Self { case: case.clone(), subject })
    }

    /// The case.
    #[must_use]
    pub const fn case(&self) -> &Case {
        &self.case
    }

    /// Its parts, as they are checked and timed.
    pub(super) fn subject(&mut self) -> &mut CaseSubject {
        &mut *self.subject
    }

    /// Runs a part `calls` times, one after the other, and waits. Attention to lists uses those of the last selection; if there is none, it
    /// selects first, which is not timed. On hardware each call takes the next of [`Runner::rotation`]'s tensors.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a part that the case does not have, and what the device reports.
    pub fn run(&mut self, part: Part, calls: u32) -> Result<Elapsed> {
        let ready = self.subject.prepare(part)?;
        self.subject.time(&ready, calls)
    }

    /// Runs a part once and compares with the f64 oracle: sampled rows of attention, the last query block's lists.
    ///
    /// # Errors
    /// The errors of [`Runner::run`], and [`Error::Blocks`](crate::Error::Blocks) for lists that break a rule.
    pub fn check(&mut self, part: Part) -> Result<Check> {
        let ready = self.subject.prepare(part)?;
        Ok(self.subject.check(&ready)?.check)
    }

    /// How a part is computed.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a part that the case does not have.
    pub fn plan(&self, part: Part) -> Result<PartPlan> {
        self.subject.plan(&part)
    }

    /// The least that a part must move and compute.
    #[must_use]
    pub fn counts(&self, part: Part) -> Counts {
        self.subject.counts(&part)
    }

    /// Seconds that the host needs to encode a call; none where nothing is encoded.
    ///
    /// # Errors
    /// What the device reports.
    pub fn encode_seconds(&mut self, part: Part) -> Result<Option<f64>> {
        let ready = self.subject.prepare(part)?;
        self.subject.encode_seconds(&ready)
    }

    /// The tensors that calls take.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.subject.rotation()
    }
}

impl core::fmt::Debug for Runner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Runner").field("case", &self.case.id()).finish_non_exhaustive()
    }
}
