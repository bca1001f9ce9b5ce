//! A case with its inputs, ready to run.

use super::check::{Check, check_attention, check_lists};
use super::clock::{Clock, Elapsed, Stamps};
use super::cpu::CpuRun;
use super::gpu::GpuRun;
use super::inputs::Tensors;
use super::part::{PartPlan, Run};
use super::{Case, Counts, Part, Rotation};
use crate::{AttentionPlan, AttentionProblem, Context, DType, HostBlockLists, Result, Tier};

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
    tensors: Tensors,
    run: Box<dyn Run>,
    /// The lists that attention reads, once they were selected.
    blocks: Option<HostBlockLists>,
    /// Seconds of a call, as [`Runner::run`] saw it last.
    last_call: f64,
}

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
        let run: Box<dyn Run> = match (clock, case.problem().dtype()) {
            (Some(clock), _) => Box::new(GpuRun::new(clock, case, &tensors)?),
            (None, DType::F32) => Box::new(CpuRun::new(case, tensors.narrowed::<f32>())),
            (None, DType::F16) => Box::new(CpuRun::new(case, tensors.narrowed::<half::f16>())),
            (None, DType::BF16) => Box::new(CpuRun::new(case, tensors.narrowed::<half::bf16>())),
        };
        Ok(Self { case: case.clone(), tensors, run, blocks: None, last_call: 0.0 })
    }

    /// The case.
    #[must_use]
    pub const fn case(&self) -> &Case {
        &self.case
    }

    /// Runs a part `calls` times, one after the other, and waits. Attention to lists uses those of the last selection; if there is none, it
    /// selects first, which is not timed. On hardware each call takes the next of [`Runner::rotation`]'s tensors.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a part that the case does not have, and what the device reports.
    pub fn run(&mut self, part: Part, calls: u32) -> Result<Elapsed> {
        if part.reads_lists() && self.blocks.is_none() {
            self.select()?;
        }
        let cycle = if part == Part::Step { self.case.cycle() } else { 1 };
        let Elapsed { wall, device } = self.run.run(part, calls)?;
        let per_step = |seconds: f64| seconds / f64::from(cycle);
        let elapsed = Elapsed { wall: per_step(wall), device: device.map(per_step) };
        self.last_call = elapsed.seconds() / f64::from(calls.max(1));
        Ok(elapsed)
    }

    pub(super) const fn last_call(&self) -> f64 {
        self.last_call
    }

    /// Runs a part once and compares with the f64 oracle: sampled rows of attention, the last query block's lists.
    ///
    /// # Errors
    /// The errors of [`Runner::run`], and [`Error::Blocks`](crate::Error::Blocks) for lists that break a rule.
    pub fn check(&mut self, part: Part) -> Result<Check> {
        self.run(part, 1)?;
        match (part, self.case.selection()) {
            (Part::Select, Some(selection)) => {
                let blocks = self.run.blocks()?;
                let check = check_lists(selection, &self.tensors, &blocks);
                self.blocks = Some(blocks);
                check
            }
            (Part::Dense, _) | (_, None) => {
                Ok(check_attention(&self.case, &self.tensors, None, &self.run.output(part)?))
            }
            (_, Some(_)) => {
                let (blocks, got) = (self.run.blocks()?, self.run.output(part)?);
                Ok(check_attention(&self.case, &self.tensors, Some(&blocks), &got))
            }
        }
    }

    /// How a part is computed.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a part that the case does not have.
    pub fn plan(&self, part: Part) -> Result<PartPlan> {
        self.run.plan(part)
    }

    /// The least that a part must move and compute.
    #[must_use]
    pub fn counts(&self, part: Part) -> Counts {
        Counts::new(&self.case, part, self.blocks.as_ref())
    }

    /// Seconds that the host needs to encode a call; none where nothing is encoded.
    ///
    /// # Errors
    /// What the device reports.
    pub fn encode_seconds(&mut self, part: Part) -> Result<Option<f64>> {
        self.run.encode_seconds(part)
    }

    /// The tensors that calls take.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.run.rotation()
    }

    fn select(&mut self) -> Result<()> {
        self.run.run(Part::Select, 1)?;
        self.blocks = Some(self.run.blocks()?);
        Ok(())
    }
}

impl core::fmt::Debug for Runner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Runner").field("case", &self.case.id()).finish_non_exhaustive()
    }
}
