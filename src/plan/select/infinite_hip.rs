//! InfiniteHiP on a device: samples, then scores and a top-k for each stage.

use std::collections::BTreeMap;

use super::cost::top_k_operations;
use super::members::{Depths, add_top_k, bucket_bytes};
use super::{SelectStep, SelectionPlan};
use crate::kernels::{self, modules};
use crate::plan::modules::share_modules;
use crate::plan::{Dispatch, Sharing};
use crate::shader::{Specialization, Taken};
use crate::{DeviceCaps, HeadReduction, InfiniteHip, Result};

/// The sizes of one stage of InfiniteHiP, and the offset of its survivors in the cache, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StagePlan {
    pub(crate) samples: usize,
    pub(crate) chunk_size: u32,
    /// Chunks that one survivor of the stage before is cut into.
    pub(crate) children: u32,
    pub(crate) max_parents: u32,
    pub(crate) max_chunks: u32,
    /// Chunks that are kept: for each list of scores where survivors are a union, else for each list of blocks.
    pub(crate) keep: u32,
    pub(crate) max_survivors: u32,
    pub(crate) survivors: u64,
    pub(crate) survivor_counts: u64,
    pub(crate) marks: u64,
}

impl SelectionPlan {
    pub(super) fn plan_infinite(&mut self, method: &InfiniteHip, caps: &DeviceCaps) -> Result<()> {
        let lists = self.num_lists();
        self.representative = method.representative;
        self.is_union = method.reduction == HeadReduction::Union;
        self.lists_per_set = self.choose_lists_per_set(method, caps);
        let mut cache_words = 0;
        let mut reserve = |words: u64| {
            let at = cache_words;
            cache_words += words;
            at
        };
        let mut parents = None;
        for (index, stage) in method.stages.iter().enumerate() {
            let samples = self.add_samples((stage.stride_q, index), u32::div_ceil, &modules::SAMPLING_MEAN, caps)?;
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
        self.cache_bytes = 4 * cache_words;
        let most_chunks = self.stages.iter().map(|stage| u64::from(stage.max_chunks)).max().unwrap_or(0);
        self.scratch_bytes = 4 * lists * u64::from(self.lists_per_set) * most_chunks;
        Ok(())
    }

    fn push_stage(&mut self, index: usize, caps: &DeviceCaps) -> Result<()> {
        let stage = self.stages[index];
        let lists = if self.is_empty() { 0 } else { self.num_lists() };

        let best_scores = self.best_scores(self.tiling.score_groups, caps);
        let mut scoring = self.scoring(&kernels::SCORE_CHUNKS, best_scores, caps);
        scoring.push(&modules::CHUNKS);
        scoring.switches.insert("MASK_PAIRS", false);
        let chunks_per_workgroup = 2 * self.tiling.owners(self.tiling.score_groups);
        let tiles = u64::from(stage.max_chunks.div_ceil(chunks_per_workgroup));
        let grid = lists * u64::from(self.lists_per_set) * tiles;
        let operations = self.score_operations(&stage) * u64::from(chunks_per_workgroup);
        self.push(SelectStep::Score(index), index, Dispatch::even(scoring, grid, operations, caps)?);

        let mut selecting = Specialization {
            kernel: &kernels::SELECT_CHUNKS,
            modules: Taken::all([
                &modules::SELECT_PARAMS,
                &modules::STRETCH,
                modules::lengths(self.problem.seq_lens_kv),
                &modules::SELECT_PLACE,
                &modules::SCORE_KEY,
                &modules::CHUNKS,
            ]),
            constants: BTreeMap::from([("WORKGROUP_SIZE", self.tiling.top_k_size)]),
            switches: BTreeMap::new(),
            arrays: crate::plan::arrays_of(caps),
            chain: Vec::new(),
        };
        let candidates = self.chunks_in_workgroup(&stage, caps);
        let lanes = match candidates.and_then(|candidates| self.depths(candidates, self.tiling.top_k_size)) {
            Some(depths) => {
                depths.add(&mut selecting);
                let lanes = depths.lanes;
                selecting.push(share_modules(lanes, self.tier, caps).0);
                lanes
            }
            None => {
                add_top_k(&mut selecting, candidates, self.tiling.top_k_size);
                selecting.push(&modules::SHUFFLE_WORKGROUP);
                1
            }
        };
        selecting.constants.insert("LANES", lanes);
        let operations = top_k_operations(u64::from(stage.max_chunks) * u64::from(self.lists_per_set));
        self.push(SelectStep::Select(index), index, Dispatch::even(selecting, lists, operations, caps)?);
        Ok(())
    }

    /// Query heads that share a list of scores.
    pub(in crate::plan) fn heads_of_list(&self) -> u32 {
        self.problem.granularity.heads_per_set(&self.problem.shape) / self.lists_per_set()
    }

    /// Operations of one descent into a chunk of a stage: two probes a round.
    fn score_operations(&self, stage: &StagePlan) -> u64 {
        let heads = self.heads_of_list();
        let rounds = u64::from(stage.rounds());
        // Each head fetches its keys separately, one after the other.
        rounds * 2 * u64::from(heads) * self.probe_operations(&self.samples[stage.samples], 1)
    }

    /// The number of candidates of a stage, where its top-k lies in workgroup memory.
    fn chunks_in_workgroup(&self, stage: &StagePlan, caps: &DeviceCaps) -> Option<u32> {
        let chunks = stage.max_chunks;
        let most = chunks.min(1 << 20);
        let top_k = self.depths(most, self.tiling.top_k_size).map_or_else(|| bucket_bytes(most), Depths::bytes);
        self.fits(chunks, top_k + 32, caps)
    }

    /// Lists of scores for each list of blocks.
    pub(crate) const fn lists_per_set(&self) -> u32 {
        self.lists_per_set
    }

    /// Whether each list of scores keeps chunks of its own.
    pub(crate) const fn is_union(&self) -> bool {
        self.is_union
    }

    /// Lists of scores for each list of blocks: one for each head where the survivors of heads are united. Otherwise the fewest that give
    /// a device enough workgroups: a lane descends for its heads one after the other, which takes long when decoding with many heads.
    fn choose_lists_per_set(&self, method: &InfiniteHip, caps: &DeviceCaps) -> u32 {
        let heads = self.problem.granularity.heads_per_set(&self.problem.shape);
        if self.is_union() {
            return heads;
        }
        let wanted = match (caps.software, self.tiling.sharing) {
            (true, _) => 8,
            (false, Sharing::Keys | Sharing::Rows | Sharing::Tiles) => 256,
            // Otherwise workgroups of fewer chunks, whose heads wait for memory one after the other.
            (false, Sharing::Columns) => 1024,
        };
        let chunks_per_workgroup = u64::from(2 * self.tiling.owners(self.tiling.score_groups));
        let later = method.stages.windows(2).map(|pair| pair[0].keep / pair[1].chunk_size);
        let fewest = later.chain([self.problem.num_chunks(self.problem.shape.seq_len_kv)]).min().unwrap_or(1);
        let workgroups = self.num_lists() * u64::from(fewest).div_ceil(chunks_per_workgroup).max(1);
        let is_enough = |lists: &u32| heads.is_multiple_of(*lists) && workgroups * u64::from(*lists) >= wanted;
        (1..heads).find(is_enough).unwrap_or(heads)
    }
}

impl StagePlan {
    /// Rounds of a descent into a chunk: after this many halvings it is a single key; a chunk of one key is still probed once.
    pub(crate) fn rounds(&self) -> u32 {
        self.chunk_size.next_power_of_two().ilog2().max(1)
    }
}
