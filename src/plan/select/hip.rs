//! HiP on a device: samples, then one search for each list.

use super::cost::top_k_operations;
use super::members::{Depths, add_top_k, beam_bytes, bucket_bytes};
use super::{SelectStep, SelectionPlan};
use crate::kernels::{self, modules, search_tree};
use crate::plan::Dispatch;
use crate::{DeviceCaps, Hip, Result};

impl SelectionPlan {
    pub(super) fn plan_hip(&mut self, hip: &Hip, caps: &DeviceCaps) -> Result<()> {
        self.representative = hip.representative;
        let lists = self.num_lists();
        let samples =
            self.add_samples((hip.stride_q, 0), |queries, stride| queries / stride, &modules::SAMPLING_STRIDE, caps)?;
        let mut specialization = match self.matrix {
            Some(scoring) => self.scoring(&kernels::SEARCH_TREE, scoring.specialize(self.tiling, caps), caps),
            None if self.searches_by_rows() => self.scoring(&kernels::SEARCH_TREE, self.shared_scores(caps), caps),
            None => {
                let (mut modules, constants) = self.best_scores(self.tiling.search_groups, caps);
                modules.push(&modules::SCORE_LANES);
                let mut scoring = self.scoring(&kernels::SEARCH_TREE, (modules, constants), caps);
                scoring.switches.insert("MASK_PAIRS", true);
                scoring
            }
        };
        specialization.extend([&modules::SAMPLING_STRIDE, &modules::SCORE_KEY]);
        specialization.constants.insert("KEYS_PER_BLOCK", hip.keys_per_block());
        let beam = self.beam(hip, caps);
        match beam.and_then(|candidates| self.depths(candidates, self.tiling.search_size())) {
            Some(depths) => depths.add(&mut specialization),
            None => add_top_k(&mut specialization, beam, self.tiling.search_size()),
        }
        specialization.push(if beam.is_some() { &modules::BEAM_WORKGROUP } else { &modules::BEAM_SCRATCH });
        self.num_searches = u32::try_from(lists).unwrap_or(u32::MAX).min(self.tiling.max_searches);
        debug_assert_eq!(samples, 0);
        let lists = if self.is_empty() { 0 } else { lists };
        let mut search = Dispatch::even(specialization, lists, self.search_operations(hip), caps)?;
        // A workgroup searches for several lists, one after the other.
        let at_a_time = |lists| [u32::min(lists, self.num_searches), 1, 1];
        search.workgroups = at_a_time(search.stretches.last().map_or(0, |last| last.end));
        for stretch in &mut search.stretches {
            stretch.workgroups = at_a_time(stretch.end - stretch.first);
        }
        // Beams in workgroup memory need no scratch memory.
        if search.specialization.constant("CANDIDATES").is_none() {
            let keys_per_block = u64::from(hip.keys_per_block());
            let words = search_tree::scratch_words(hip.max_blocks().into(), keys_per_block);
            self.scratch_bytes = 4 * u64::from(self.num_searches) * words;
        }
        self.push(SelectStep::Search(*hip), 0, search);
        Ok(())
    }

    /// Operations of one search for the blocks of a list.
    fn search_operations(&self, hip: &Hip) -> u64 {
        let heads = self.problem.granularity.heads_per_set(&self.problem.shape);
        let candidates = 2 * u64::from(hip.max_blocks());
        let keys_per_block = u64::from(hip.keys_per_block());
        // Groups are halved until they are single blocks; the alignment of the first groups may add a round.
        let blocks_per_group = self.problem.shape.seq_len_kv / hip.block_size_k / hip.max_blocks().max(1);
        let rounds = u64::from((blocks_per_group + 2).next_power_of_two().ilog2() + 1);
        let scores = candidates * keys_per_block * self.probe_operations(&self.samples[0], heads);
        rounds * (scores + top_k_operations(candidates))
    }

    /// The number of candidates of a search, where its beam lies in workgroup memory.
    fn beam(&self, hip: &Hip, caps: &DeviceCaps) -> Option<u32> {
        let candidates = hip.max_blocks().checked_mul(2)?;
        let scores = self.score_bytes(self.tiling.search_groups);
        let most = candidates.min(1 << 20);
        let top_k = self.depths(most, self.tiling.search_size()).map_or_else(|| bucket_bytes(most), Depths::bytes);
        self.fits(candidates, top_k + beam_bytes(most) + scores, caps)
    }
}
