//! Plans of selections: the part that all methods share. Each method's own part is in the file of its name.

mod cost;
mod hip;
mod infinite_hip;
mod matrix;
mod members;
mod memory;
mod operators;
mod tiling;
mod view;

use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use super::attend::matrix::check_dtype;
use super::modules::elem_module;
use super::{Dispatch, Sharing, TunedAt};
use crate::kernels::{self, modules, sample_queries};
use crate::shader::{Arrays, Kernel, Module, Specialization, Taken};
use crate::{
    DType, DeviceCaps, DispatchBudget, Error, Hip, MissedTier, Representative, Result, SelectionMethod,
    SelectionProblem, SelectorStep, Tier,
};
pub(super) use cost::top_k_operations;
pub(crate) use infinite_hip::StagePlan;
use matrix::{MatrixScoring, ModulesAndConstants};
pub(super) use members::{add_top_k, bucket_bytes};
pub(crate) use operators::{Region, RegionMemory};
pub use tiling::{Candidates, SelectionTiling};

/// The dispatches that compute a [`SelectionProblem`] on a device, and the memory they need. A plain value, like
/// [`AttentionPlan`](crate::AttentionPlan).
///
/// ```
/// use wattn::{AttentionShape, DType, DeviceCaps, Preset, SelectionPlan, SelectionProblem};
/// let shape = AttentionShape {
///     batch_size: 1, seq_len_q: 1, seq_len_kv: 1 << 20,
///     num_q_heads: 32, num_kv_heads: 8, head_dim: 128, head_dim_v: 128,
/// };
/// let problem = SelectionProblem::new(shape, DType::F16, Preset::ThreeK);
/// let plan = SelectionPlan::new(&problem, &DeviceCaps::BASELINE)?;
/// assert_eq!(plan.dispatches().len(), 7); // samples, then scores and top-k of three stages
/// assert_eq!(plan.num_dispatches(4), 3); // of which step 4 needs the samples and the last stage
/// println!("{plan}");
/// # Ok::<(), wattn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SelectionPlan {
    pub(crate) problem: SelectionProblem,
    pub(super) tier: Tier,
    pub(super) tiling: SelectionTiling,
    pub(super) matrix: Option<MatrixScoring>,
    pub(super) dispatches: Vec<Dispatch>,
    /// The kind of each dispatch.
    pub(crate) steps: Vec<SelectStep>,
    /// For each dispatch the last stage that needs it: the schedule of refreshes.
    pub(super) last_stages: Vec<usize>,
    pub(super) scratch_bytes: u64,
    /// Of summaries, which lie where other methods have their samples.
    pub(super) summaries_bytes: u64,
    pub(super) cache_bytes: u64,
    /// The samples that steps read, in the order in which they lie in memory.
    pub(crate) samples: Vec<Samples>,
    pub(crate) stages: Vec<StagePlan>,
    /// Of a method that is made of operators.
    pub(crate) operators: Vec<SelectorStep>,
    /// Where their tensors are: summaries in the memory of samples, scores in scratch memory.
    pub(crate) regions: Vec<Region>,
    /// The sizes of subgroups, in tiers with subgroups.
    pub(super) subgroup_lanes: Option<RangeInclusive<u32>>,
    /// Number of workgroups that search trees, each with scratch memory of its own.
    pub(super) num_searches: u32,
    pub(super) max_rounds: u32,
    pub(crate) representative: Representative,
    /// Whether each list of scores keeps chunks of its own.
    pub(super) is_union: bool,
    /// Lists of scores for each list of blocks.
    pub(super) lists_per_set: u32,
    /// Why [`Tier::Matrix`] was not taken although the device reports its features.
    pub(super) matrix_fault: Option<String>,
    /// The better tier that the device could have if it were opened with its features.
    pub(super) missed: Option<MissedTier>,
    /// The class whose measured tiling was taken, if any.
    pub(super) tuned: Option<TunedAt>,
}

/// What a dispatch does, with indices into `samples` and `stages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelectStep {
    Sample(usize),
    Search(Hip),
    Score(usize),
    Select(usize),
    /// An operator of a method that is made of them.
    Operator(usize),
}

/// How the queries of a block are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Samples {
    pub(crate) stride_q: u32,
    pub(crate) num_samples: u32,
    pub(crate) offset_bytes: u64,
    pub(crate) size_bytes: u64,
}

impl SelectionPlan {
    /// Plans with the best tier that the device offers.
    ///
    /// # Errors
    /// The errors of [`SelectionProblem::validate`], and [`Error::Limit`] when the problem passes a limit of the device.
    ///
    /// # Cost
    /// Arithmetic only.
    pub fn new(problem: &SelectionProblem, caps: &DeviceCaps) -> Result<Self> {
        problem.validate()?;
        let plan = Self::with_tier(problem, caps, Self::best_tier(problem, caps))?;
        if caps.tier.is_some() {
            return Ok(plan);
        }
        let as_reported = |caps: &DeviceCaps| Self::best_tier(problem, caps).matrix();
        let missed = caps.missed(problem.dtype == DType::F16, |caps| Self::best_tier(problem, caps));
        Ok(Self { matrix_fault: caps.fault_behind(as_reported), missed, ..plan })
    }

    /// The tier that [`SelectionPlan::new`] takes: [`Tier::Matrix`] for HiP over f16 tensors, if there are enough samples to fill matrices
    /// and the device has them in hardware; else [`DeviceCaps::best_tier`]. A tier that was measured for the problem comes first, and before
    /// that the one that the device is [held to](DeviceCaps::with_tier).
    #[must_use]
    pub fn best_tier(problem: &SelectionProblem, caps: &DeviceCaps) -> Tier {
        if let Some(tier) = caps.tier {
            return tier;
        }
        if let Some((tier, ..)) = caps.tuned_selection(problem) {
            return tier;
        }
        let worthwhile = MatrixScoring::of(problem, caps, Tier::Matrix)
            .is_some_and(|scoring| scoring.is_worthwhile(SelectionTiling::num_samples(problem)));
        // A software device multiplies f16 one by one.
        if worthwhile && !caps.software { Tier::Matrix } else { caps.best_tier() }
    }

    /// Plans with one tier.
    ///
    /// # Errors
    /// The errors of [`SelectionPlan::new`], [`Error::MissingFeature`] when the device lacks the tier, and
    /// [`Error::FaultyFeature`] when it was tried and does not work.
    pub fn with_tier(problem: &SelectionProblem, caps: &DeviceCaps, tier: Tier) -> Result<Self> {
        problem.validate()?;
        caps.require(tier)?;
        let planned = || Self::with_tiling(problem, caps, tier, SelectionTiling::choose(problem, caps, tier));
        Self::of_tuning(problem, caps, tier).map_or_else(planned, Ok)
    }

    /// Plans with one tier and one tiling, for tests and tuning. The tiling changes no result.
    ///
    /// # Errors
    /// The errors of [`SelectionPlan::with_tier`], and [`Error::Invalid`] when the tiling breaks a rule.
    pub fn with_tiling(
        problem: &SelectionProblem,
        caps: &DeviceCaps,
        tier: Tier,
        tiling: SelectionTiling,
    ) -> Result<Self> {
        problem.validate()?;
        caps.require(tier)?;
        tiling.validate(caps, tier)?;
        check_dtype(problem.dtype, tier)?;
        let matrix = MatrixScoring::of(problem, caps, tier);
        matrix.map_or(Ok(()), |scoring| scoring.validate(tiling, caps))?;
        let mut plan = Self {
            problem: problem.clone(),
            tier,
            tiling,
            matrix,
            dispatches: Vec::new(),
            steps: Vec::new(),
            last_stages: Vec::new(),
            scratch_bytes: 0,
            summaries_bytes: 0,
            cache_bytes: 0,
            samples: Vec::new(),
            stages: Vec::new(),
            operators: Vec::new(),
            regions: Vec::new(),
            subgroup_lanes: caps.subgroup_size.clone().filter(|_| tier.subgroup()),
            num_searches: 0,
            max_rounds: u32::MAX,
            representative: Representative::default(),
            is_union: false,
            lists_per_set: 1,
            matrix_fault: None,
            missed: None,
            tuned: None,
        };
        match problem.method() {
            SelectionMethod::Hip(hip) => plan.plan_hip(hip, caps)?,
            SelectionMethod::InfiniteHip(method) => plan.plan_infinite(method, caps)?,
            SelectionMethod::Other(method) => plan.plan_operators(&**method, caps)?,
        }
        // Kernels bind the samples of one stage at a time, and the other memory as a whole.
        let samples = plan.samples.iter().map(|samples| samples.size_bytes).max().unwrap_or(0);
        let binding = ("max_storage_buffer_binding_size", caps.max_storage_binding_bytes);
        let buffer = ("max_buffer_size", caps.max_buffer_bytes);
        let storage = ("max_compute_workgroup_storage_size", caps.max_workgroup_storage_bytes.into());
        for (needed, (limit, available)) in [
            (plan.workgroup_storage_bytes(), storage),
            (samples, binding),
            (plan.samples_bytes(), buffer),
            (plan.scratch_bytes(), binding),
            (plan.cache_bytes(), binding),
        ] {
            if needed > available {
                return Err(Error::Limit { limit, needed, available });
            }
        }
        Ok(plan)
    }

    /// Adds a dispatch that stages up to `last_stage` need.
    fn push(&mut self, step: SelectStep, last_stage: usize, dispatch: Dispatch) {
        self.steps.push(step);
        self.last_stages.push(last_stage);
        self.dispatches.push(dispatch);
    }

    /// The common part of kernels that score keys, with the modules and constants of one way of scoring.
    fn scoring(
        &self,
        kernel: &'static Kernel,
        (modules, constants): ModulesAndConstants,
        caps: &DeviceCaps,
    ) -> Specialization {
        let elem = elem_module(self.problem.dtype, self.tier, caps);
        let common = [
            &modules::SELECT_PARAMS,
            &modules::STRETCH,
            modules::lengths(self.problem.seq_lens_kv),
            &modules::SELECT_PLACE,
            &modules::PAGING_CONTIGUOUS,
            &modules::ROWS_OF_K,
            elem,
        ];
        Specialization {
            kernel,
            modules: Taken::all(common.into_iter().chain(modules)),
            constants,
            switches: BTreeMap::new(),
            arrays: crate::plan::arrays_of(caps),
            chain: Vec::new(),
        }
    }

    /// The samples of a stride, computed once for all stages that use them; `stage` is the last of these. `num_samples` gives their number
    /// for a block of queries, and the module `sampling` computes them.
    fn add_samples(
        &mut self,
        (stride_q, stage): (u32, usize),
        num_samples: fn(u32, u32) -> u32,
        sampling: &'static Module,
        caps: &DeviceCaps,
    ) -> Result<usize> {
        let shape = self.problem.shape;
        let queries = self.problem.blocks().block_size_q.min(shape.seq_len_q);
        // Strides larger than a block are all the same.
        let stride_q = stride_q.min(queries).max(1);
        if let Some(found) = self.samples.iter().position(|samples| samples.stride_q == stride_q) {
            let made_by = self.steps.iter().position(|&step| step == SelectStep::Sample(found));
            made_by.into_iter().for_each(|index| self.last_stages[index] = stage);
            return Ok(found);
        }
        let num_samples = num_samples(queries, stride_q).max(1);
        let rows = u64::from(shape.batch_size)
            * u64::from(shape.num_q_heads)
            * u64::from(self.num_q_blocks())
            * u64::from(num_samples);
        let items = rows * u64::from(shape.head_dim / 4);
        if items > u64::from(u32::MAX) {
            return Err(Error::TooLarge { what: "samples", needed: items, available: u32::MAX.into() });
        }
        let offset_bytes = self.samples_bytes();
        self.samples.push(Samples { stride_q, num_samples, offset_bytes, size_bytes: items * 16 });
        let specialization = Specialization {
            kernel: &kernels::SAMPLE_QUERIES,
            modules: Taken::all([
                &modules::SELECT_PARAMS,
                &modules::STRETCH,
                elem_module(self.problem.dtype, self.tier, caps),
                sampling,
            ]),
            constants: BTreeMap::from([
                ("HEAD_DIM4", shape.head_dim / 4),
                ("WORKGROUP_SIZE", sample_queries::WORKGROUP_SIZE),
            ]),
            switches: BTreeMap::new(),
            arrays: Arrays::Memory, // it has none
            chain: Vec::new(),
        };
        let size = u64::from(sample_queries::WORKGROUP_SIZE);
        let operations = size * 4 * u64::from(stride_q) * DispatchBudget::FETCH;
        let dispatch = Dispatch::even(specialization, items.div_ceil(size), operations, caps)?;
        self.push(SelectStep::Sample(self.samples.len() - 1), stage, dispatch);
        Ok(self.samples.len() - 1)
    }

    /// The number of dispatches of a decode step, by [`SelectionProblem::first_stage`].
    #[must_use]
    pub fn num_dispatches(&self, step: u64) -> usize {
        self.problem.first_stage(step).map_or(0, |stage| self.steps_from(stage).count())
    }

    /// The dispatches that compute the stages from `first_stage` on.
    pub(crate) fn steps_from(&self, first_stage: usize) -> impl Iterator<Item = usize> {
        let is_due = move |&(_, &last): &(usize, &usize)| last >= first_stage;
        self.last_stages.iter().enumerate().filter(is_due).map(|(index, _)| index)
    }

    pub(crate) const fn max_rounds(&self) -> u32 {
        self.max_rounds
    }

    pub(crate) fn num_q_blocks(&self) -> u32 {
        self.problem.blocks().num_q_blocks(&self.problem.shape)
    }

    /// Lists of blocks.
    pub(super) fn num_lists(&self) -> u64 {
        self.problem.blocks().num_lists(&self.problem.shape)
    }

    /// Whether there are no lists to select.
    fn is_empty(&self) -> bool {
        self.problem.shape.seq_len_q == 0 || self.problem.shape.batch_size == 0
    }
}
