//! The uniforms of a selection's dispatches: the numbers that all methods have, and one function for the numbers of each method.

use super::params::Numbers;
use crate::kernels::places::SeqLensPlace;
use crate::kernels::sample_queries::{CENTER, FIRST, LAST, SelectParams};
use crate::kernels::score_chunks::StageParams;
use crate::kernels::search_tree::HipParams;
use crate::plan::SelectStep;
use crate::{GroupBounds, Hip, Mask, Representative, SelectionPlan};

/// Offsets and strides in the units of kernels: of q and k in vec4 elements.
pub(super) struct Places {
    pub(super) q: (u32, [u32; 3]),
    pub(super) k: (u32, [u32; 3]),
    pub(super) seq_lens_kv: Option<SeqLensPlace>,
    /// Indices and counts.
    pub(super) blocks: [u32; 2],
}

/// The numbers of a dispatch, by the names of its uniforms.
pub(super) fn numbers(plan: &SelectionPlan, step: SelectStep, places: &Places) -> Numbers {
    let mut numbers = vec![("params", bytemuck::bytes_of(&shared(plan, step, places)).to_vec())];
    numbers.extend(places.seq_lens_kv.map(|place| ("seq_lens_place", bytemuck::bytes_of(&place).to_vec())));
    match step {
        SelectStep::Sample(_) | SelectStep::Operator(_) => {}
        SelectStep::Search(hip) => numbers.push(("hip", bytemuck::bytes_of(&of_search(plan, &hip)).to_vec())),
        SelectStep::Score(index) | SelectStep::Select(index) => {
            numbers.push(("stage", bytemuck::bytes_of(&of_stage(plan, index)).to_vec()));
        }
    }
    numbers
}

fn shared(plan: &SelectionPlan, step: SelectStep, places: &Places) -> SelectParams {
    let problem = &plan.problem;
    let (shape, blocks) = (problem.shape(), problem.blocks());
    let (q_offset, [q_batch, q_seq, q_head]) = places.q;
    let (k_offset, [k_batch, k_seq, k_head]) = places.k;
    let samples = plan.samples_of(step);
    let lists_per_set = plan.lists_per_set();
    SelectParams {
        batch_size: shape.batch_size,
        seq_len_q: shape.seq_len_q,
        seq_len_kv: shape.seq_len_kv,
        num_q_heads: shape.num_q_heads,
        group_size: shape.group_size(),
        num_sets: blocks.granularity.num_sets(shape) * lists_per_set,
        heads_per_set: blocks.granularity.heads_per_set(shape) / lists_per_set,
        num_q_blocks: plan.num_q_blocks(),
        block_size_q: blocks.block_size_q,
        num_samples: samples.num_samples,
        stride_q: samples.stride_q,
        scale: plan.sample_scale(),
        q_offset,
        q_batch,
        q_seq,
        q_head,
        k_offset,
        k_batch,
        k_seq,
        k_head,
        // Below 2^29, as the problem's validation saw.
        sink_size: blocks.sink_size as i32,
        candidate_window: problem.candidate_window() as i32,
        dense_below: blocks.dense_below as i32,
        representative: match plan.representative {
            Representative::Center => CENTER,
            Representative::First => FIRST,
            Representative::Last => LAST,
        },
        max_blocks: blocks.max_blocks,
        indices_offset: places.blocks[0],
        counts_offset: places.blocks[1],
    }
}

/// The numbers that only a search of HiP has.
fn of_search(plan: &SelectionPlan, hip: &Hip) -> HipParams {
    HipParams {
        block_size: hip.block_size_k,
        stride_k: hip.stride_k,
        num_groups: hip.max_blocks(),
        max_rounds: plan.max_rounds(),
        is_causal: (plan.problem.mask == Mask::Causal).into(),
        align_groups: (hip.group_bounds == GroupBounds::Aligned).into(),
    }
}

/// The numbers that only a stage of InfiniteHiP has.
fn of_stage(plan: &SelectionPlan, index: usize) -> StageParams {
    let stage = plan.stages[index];
    // The cache fits a binding, and its offsets in words 32 bits.
    let word = |at: u64| at as u32;
    let [parents_offset, parent_counts_offset] = match index.checked_sub(1).map(|index| plan.stages[index]) {
        Some(parent) => [parent.survivors, parent.survivor_counts].map(word),
        None => [0; 2],
    };
    StageParams {
        chunk_size: stage.chunk_size,
        first_window: plan.problem.first_window(),
        children: stage.children,
        max_parents: stage.max_parents,
        parents_offset,
        parent_counts_offset,
        max_chunks: stage.max_chunks,
        keep: stage.keep,
        survivors_offset: word(stage.survivors),
        survivor_counts_offset: word(stage.survivor_counts),
        marks_offset: word(stage.marks),
        rounds: stage.rounds(),
        lists_per_set: plan.lists_per_set(),
        max_survivors: stage.max_survivors,
        is_first: (index == 0).into(),
        is_last: (index + 1 == plan.stages.len()).into(),
        is_union: plan.is_union().into(),
    }
}
