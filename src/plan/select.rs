//! Selection of key blocks: samples, then HiP's search or InfiniteHiP's stages.

use std::collections::BTreeMap;

use super::attend::elem_module;
use super::select_cost::top_k_operations;
use super::select_matrix::{MatrixScoring, ModulesAndConstants};
use super::tiling_matrix::check_dtype;
use super::{Dispatch, SelectionTiling, Sharing, TunedAt};
use crate::kernels::{self, modules, sample_queries};
use crate::shader::{Arrays, Kernel, Specialization};
use crate::{
    DType, DeviceCaps, DispatchBudget, Error, HeadReduction, Hip, InfiniteHip, MissedTier, Result, SelectionMethod,
    SelectionProblem, Tier,
};

/// The dispatches that compute a [`SelectionProblem`] on a device, and the memory they need. A value, as
/// [`AttentionPlan`](crate::AttentionPlan) is.
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
    /// What each dispatch does.
    pub(crate) pieces: Vec<Piece>,
    /// Samples that the pieces look at, in the order of their place in memory.
    pub(crate) samples: Vec<Samples>,
    pub(crate) stages: Vec<StagePlan>,
    /// Workgroups that search trees, each with scratch memory of its own.
    pub(super) num_searches: u32,
    pub(super) max_rounds: u32,
    /// Lists of scores for each list of blocks.
    pub(super) lists_per_set: u32,
    /// Why [`Tier::Matrix`] was not taken though the device reports what it needs.
    pub(super) matrix_fault: Option<String>,
    /// The better tier that the device was not opened for.
    pub(super) missed: Option<MissedTier>,
    /// Where the tiling was measured on the device, if it was.
    pub(super) tuned: Option<TunedAt>,
}

/// What a dispatch does, with indices into `samples` and `stages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Sample(usize),
    Search,
    Score(usize),
    Select(usize),
}

/// How the queries of a block are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Samples {
    pub(crate) stride_q: u32,
    pub(crate) num_samples: u32,
    pub(crate) offset_bytes: u64,
    pub(crate) size_bytes: u64,
}

/// The sizes of one stage of InfiniteHiP, and where in the cache its survivors are, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StagePlan {
    pub(crate) samples: usize,
    pub(crate) chunk_size: u32,
    /// Chunks made of one survivor of the stage before.
    pub(crate) children: u32,
    pub(crate) max_parents: u32,
    pub(crate) max_chunks: u32,
    /// Chunks that are kept: of each list of scores where survivors are their union, else of the best of all.
    pub(crate) keep: u32,
    pub(crate) max_survivors: u32,
    pub(crate) survivors: u64,
    pub(crate) survivor_counts: u64,
    pub(crate) marks: u64,
}

impl SelectionPlan {
    /// Plans with the best tier that the device offers.
    ///
    /// # Errors
    /// What [`SelectionProblem::validate`] returns, and [`Error::Limit`] when the problem passes a limit of the device.
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

    /// The tier that [`SelectionPlan::new`] takes: [`Tier::Matrix`] for HiP over f16 tensors with enough samples to fill
    /// matrices, where the device has them in hardware; else [`DeviceCaps::best_tier`]. Where one was measured for the
    /// problem, that one; where the device is [held to a tier](DeviceCaps::with_tier), that.
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
    /// Those of [`SelectionPlan::new`], [`Error::MissingFeature`] when the device lacks the tier, and
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
    /// Those of [`SelectionPlan::with_tier`], and [`Error::Invalid`] when the tiling breaks a rule.
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
            pieces: Vec::new(),
            samples: Vec::new(),
            stages: Vec::new(),
            num_searches: 0,
            max_rounds: u32::MAX,
            lists_per_set: 1,
            matrix_fault: None,
            missed: None,
            tuned: None,
        };
        match problem.method() {
            SelectionMethod::Hip(hip) => plan.plan_hip(hip, caps)?,
            SelectionMethod::InfiniteHip(method) => plan.plan_infinite(method, caps)?,
        }
        // Kernels bind one stage's samples at a time, and the rest in whole.
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

    fn plan_hip(&mut self, hip: &Hip, caps: &DeviceCaps) -> Result<()> {
        let lists = self.num_lists();
        let samples = self.add_samples(hip.stride_q, caps)?;
        let mut specialization = match self.matrix {
            Some(scoring) => self.scoring(&kernels::SEARCH_TREE, scoring.specialize(self.tiling, caps), caps),
            None => {
                let (mut modules, constants) = self.best_scores(self.tiling.search_groups, caps);
                modules.push(&modules::SCORE_LANES);
                let mut scoring = self.scoring(&kernels::SEARCH_TREE, (modules, constants), caps);
                scoring.switches.insert("MASK_PAIRS", true);
                scoring
            }
        };
        specialization.modules.extend([&modules::SAMPLING_STRIDE, &modules::SCORE_KEY]);
        self.add_top_k(&mut specialization, self.beam(caps), self.tiling.search_size());
        self.num_searches = u32::try_from(lists).unwrap_or(u32::MAX).min(self.tiling.max_searches);
        debug_assert_eq!(samples, 0);
        let lists = if self.is_empty() { 0 } else { lists };
        let mut search = Dispatch::even(specialization, lists, self.search_operations(hip), caps)?;
        // A workgroup searches for one list after the other.
        let at_a_time = |lists| [u32::min(lists, self.num_searches), 1, 1];
        search.workgroups = at_a_time(search.stretches.last().map_or(0, |last| last.end));
        for stretch in &mut search.stretches {
            stretch.workgroups = at_a_time(stretch.end - stretch.first);
        }
        self.push(Piece::Search, search);
        Ok(())
    }

    fn plan_infinite(&mut self, method: &InfiniteHip, caps: &DeviceCaps) -> Result<()> {
        let lists = self.num_lists();
        self.lists_per_set = self.choose_lists_per_set(method, caps);
        let mut cache_words = 0;
        let mut reserve = |words: u64| {
            let at = cache_words;
            cache_words += words;
            at
        };
        let mut parents = None;
        for (index, stage) in method.stages.iter().enumerate() {
            let samples = self.add_samples(stage.stride_q, caps)?;
            let (children, max_parents, max_chunks) = match parents {
                None => (1, 0, self.problem.num_chunks(self.problem.shape.seq_len_kv).max(1)),
                Some((chunk_size, max_parents)) => {
                    let children: u32 = chunk_size / stage.chunk_size;
                    (children, max_parents, u32::saturating_mul(max_parents, children))
                }
            };
            let keep = stage.kept_chunks().min(max_chunks);
            let max_survivors = keep.saturating_mul(if self.is_union() { self.lists_per_set } else { 1 });
            let survivors = u64::from(max_survivors);
            let is_last = index + 1 == method.stages.len();
            let of_lists = |each: u64| lists * each;
            let marks = if self.is_union() { max_chunks.into() } else { 0 };
            let planned = StagePlan {
                samples,
                chunk_size: stage.chunk_size,
                children,
                max_parents,
                max_chunks,
                keep,
                max_survivors,
                survivors: reserve(if is_last { 0 } else { of_lists(survivors) }),
                survivor_counts: reserve(if is_last { 0 } else { lists }),
                marks: reserve(of_lists(marks)),
            };
            parents = Some((stage.chunk_size, max_survivors));
            self.stages.push(planned);
            self.push_stage(index, caps)?;
        }
        Ok(())
    }

    fn push_stage(&mut self, index: usize, caps: &DeviceCaps) -> Result<()> {
        let stage = self.stages[index];
        let lists = if self.is_empty() { 0 } else { self.num_lists() };

        let best_scores = self.best_scores(self.tiling.score_groups, caps);
        let mut scoring = self.scoring(&kernels::SCORE_CHUNKS, best_scores, caps);
        scoring.modules.push(&modules::CHUNKS);
        scoring.switches.insert("MASK_PAIRS", false);
        let chunks_per_workgroup = 2 * self.tiling.owners(self.tiling.score_groups);
        let tiles = u64::from(stage.max_chunks.div_ceil(chunks_per_workgroup));
        let grid = lists * u64::from(self.lists_per_set) * tiles;
        let operations = self.score_operations(&stage) * u64::from(chunks_per_workgroup);
        self.push(Piece::Score(index), Dispatch::even(scoring, grid, operations, caps)?);

        let mut selecting = Specialization {
            kernel: &kernels::SELECT_CHUNKS,
            modules: vec![
                &modules::SELECT_PARAMS,
                &modules::STRETCH,
                modules::lengths(self.problem.seq_lens_kv),
                &modules::SELECT_PLACE,
                &modules::SCORE_KEY,
                &modules::CHUNKS,
            ],
            constants: BTreeMap::from([("WORKGROUP_SIZE", self.tiling.top_k_size)]),
            switches: BTreeMap::new(),
            arrays: super::arrays_of(caps),
        };
        self.add_top_k(&mut selecting, self.chunks_in_workgroup(&stage, caps), self.tiling.top_k_size);
        let operations = top_k_operations(u64::from(stage.max_chunks) * u64::from(self.lists_per_set));
        self.push(Piece::Select(index), Dispatch::even(selecting, lists, operations, caps)?);
        Ok(())
    }

    fn push(&mut self, piece: Piece, dispatch: Dispatch) {
        self.pieces.push(piece);
        self.dispatches.push(dispatch);
    }

    /// What the kernels that score keys have in common, with the modules and constants of a way to score them.
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
            elem,
        ];
        Specialization {
            kernel,
            modules: common.into_iter().chain(modules).collect(),
            constants,
            switches: BTreeMap::new(),
            arrays: super::arrays_of(caps),
        }
    }

    /// The samples of a stride, made once for all that look at them.
    fn add_samples(&mut self, stride_q: u32, caps: &DeviceCaps) -> Result<usize> {
        let shape = self.problem.shape;
        let queries = self.problem.blocks().block_size_q.min(shape.seq_len_q);
        // Strides past the queries of a block are all the same.
        let stride_q = stride_q.min(queries).max(1);
        if let Some(found) = self.samples.iter().position(|samples| samples.stride_q == stride_q) {
            return Ok(found);
        }
        let (num_samples, module) = match self.problem.method {
            SelectionMethod::Hip(_) => ((queries / stride_q).max(1), &modules::SAMPLING_STRIDE),
            SelectionMethod::InfiniteHip(_) => (queries.div_ceil(stride_q).max(1), &modules::SAMPLING_MEAN),
        };
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
            modules: vec![
                &modules::SELECT_PARAMS,
                &modules::STRETCH,
                elem_module(self.problem.dtype, self.tier, caps),
                module,
            ],
            constants: BTreeMap::from([
                ("HEAD_DIM4", shape.head_dim / 4),
                ("WORKGROUP_SIZE", sample_queries::WORKGROUP_SIZE),
            ]),
            switches: BTreeMap::new(),
            arrays: Arrays::Memory, // it has none
        };
        let size = u64::from(sample_queries::WORKGROUP_SIZE);
        let operations = size * 4 * u64::from(stride_q) * DispatchBudget::FETCH;
        let dispatch = Dispatch::even(specialization, items.div_ceil(size), operations, caps)?;
        self.push(Piece::Sample(self.samples.len() - 1), dispatch);
        Ok(self.samples.len() - 1)
    }

    /// Dispatches of a decode step, as [`SelectionProblem::first_stage`] has it.
    #[must_use]
    pub fn num_dispatches(&self, step: u64) -> usize {
        self.problem.first_stage(step).map_or(0, |stage| self.pieces_from(stage).count())
    }

    /// The dispatches that compute the stages from `first_stage` on.
    pub(crate) fn pieces_from(&self, first_stage: usize) -> impl Iterator<Item = usize> {
        let is_due = move |piece: Piece| match piece {
            Piece::Search => true,
            Piece::Score(stage) | Piece::Select(stage) => stage >= first_stage,
            Piece::Sample(samples) => {
                self.stages.is_empty() || self.stages.iter().skip(first_stage).any(|stage| stage.samples == samples)
            }
        };
        self.pieces.iter().enumerate().filter(move |&(_, &piece)| is_due(piece)).map(|(index, _)| index)
    }

    pub(crate) const fn max_rounds(&self) -> u32 {
        self.max_rounds
    }

    pub(crate) const fn num_q_blocks(&self) -> u32 {
        let block_size_q = match &self.problem.method {
            SelectionMethod::Hip(hip) => hip.block_size_q,
            SelectionMethod::InfiniteHip(method) => method.block_size_q,
        };
        self.problem.shape.seq_len_q.div_ceil(block_size_q)
    }

    /// Lists of blocks.
    pub(super) fn num_lists(&self) -> u64 {
        self.problem.blocks().num_lists(&self.problem.shape)
    }

    /// Lists of scores for each list of blocks.
    pub(crate) const fn lists_per_set(&self) -> u32 {
        self.lists_per_set
    }

    /// Whether each list of scores keeps chunks of its own.
    pub(crate) const fn is_union(&self) -> bool {
        let SelectionMethod::InfiniteHip(method) = &self.problem.method else { return false };
        matches!(method.reduction, HeadReduction::Union)
    }

    /// A list of scores for each head where the heads' survivors are united. Else the fewest that give a device enough
    /// workgroups: a lane descends for one head after the other, so that decoding with many heads would take long.
    fn choose_lists_per_set(&self, method: &InfiniteHip, caps: &DeviceCaps) -> u32 {
        let heads = self.problem.granularity.heads_per_set(&self.problem.shape);
        if self.is_union() {
            return heads;
        }
        let wanted = match (caps.software, self.tiling.sharing) {
            (true, _) => 8,
            (false, Sharing::Keys | Sharing::Rows | Sharing::Tiles) => 256,
            // Workgroups of fewer chunks, whose heads wait for memory one after the other.
            (false, Sharing::Columns) => 1024,
        };
        let chunks_per_workgroup = u64::from(2 * self.tiling.owners(self.tiling.score_groups));
        let later = method.stages.windows(2).map(|pair| pair[0].keep / pair[1].chunk_size);
        let fewest = later.chain([self.problem.num_chunks(self.problem.shape.seq_len_kv)]).min().unwrap_or(1);
        let workgroups = self.num_lists() * u64::from(fewest).div_ceil(chunks_per_workgroup).max(1);
        let is_enough = |lists: &u32| heads.is_multiple_of(*lists) && workgroups * u64::from(*lists) >= wanted;
        (1..heads).find(is_enough).unwrap_or(heads)
    }

    /// Whether there is nothing to select for.
    fn is_empty(&self) -> bool {
        self.problem.shape.seq_len_q == 0 || self.problem.shape.batch_size == 0
    }
}
