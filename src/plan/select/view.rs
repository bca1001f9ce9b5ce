//! Getters and printing of a selection's plan, and where in its memory tests find the results of stages.

use super::{Dispatch, SelectionPlan, SelectionTiling, TunedAt};
use crate::{SelectionProblem, Tier};

impl SelectionPlan {
    /// The problem.
    #[must_use]
    pub const fn problem(&self) -> &SelectionProblem {
        &self.problem
    }

    /// The dispatches of a call that computes every stage, in order.
    #[must_use]
    pub fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }

    /// The tier that the kernels use.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// The sizes of workgroups.
    #[must_use]
    pub const fn tiling(&self) -> SelectionTiling {
        self.tiling
    }

    /// The class whose measured sizes were taken; `None`: the sizes follow the rules.
    #[must_use]
    pub const fn tuned_at(&self) -> Option<TunedAt> {
        self.tuned
    }

    /// HiP's search stopped after this many rounds: the lists then hold the first blocks of the groups. For tests of every round.
    #[doc(hidden)]
    #[must_use]
    pub fn with_rounds(mut self, rounds: u32) -> Self {
        self.max_rounds = rounds;
        self
    }

    /// The plan with a constant of its kernels replaced. For tests that make kernels wrong.
    #[doc(hidden)]
    #[must_use]
    pub fn with_constant(mut self, name: &'static str, value: u32) -> Self {
        crate::plan::replace_constant(&mut self.dispatches, name, value);
        self
    }

    /// The survivors of a stage for one list of blocks, `[batch, set, q_block]`, as a range of words of the cache. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn survivors_in<'a>(&self, cache: &'a [u32], stage: usize, list: usize) -> &'a [u32] {
        let planned = self.stages[stage];
        let room = planned.max_survivors as usize;
        let count = cache[planned.survivor_counts as usize + list] as usize;
        &cache[planned.survivors as usize + list * room..][..count]
    }

    /// The scores of a stage for one list of scores, as a range of words of the scratch memory. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn scores_in<'a>(&self, scratch: &'a [f32], stage: usize, list: usize) -> &'a [f32] {
        let max_chunks = self.stages[stage].max_chunks as usize;
        &scratch[list * max_chunks..][..max_chunks]
    }
}

impl core::fmt::Display for SelectionPlan {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (shape, blocks) = (&self.problem.shape, self.problem.blocks());
        let name = self.problem.method.selector().name();
        writeln!(
            f,
            "selection  {name}, batch {} x q {} x kv {}, heads {}/{}, width {}, {}",
            shape.batch_size,
            shape.seq_len_q,
            shape.seq_len_kv,
            shape.num_q_heads,
            shape.num_kv_heads,
            shape.head_dim,
            self.problem.dtype,
        )?;
        writeln!(
            f,
            "lists      {} x {} keys for {} queries, one for each {}",
            blocks.max_blocks, blocks.block_size, blocks.block_size_q, blocks.granularity,
        )?;
        writeln!(f, "loads      {}", self.loads())?;
        if let Some(reason) = &self.matrix_fault {
            writeln!(f, "not taken  {}: {reason}", Tier::Matrix)?;
        }
        if let Some(missed) = &self.missed {
            writeln!(f, "missed     {missed}")?;
        }
        if let Some(at) = self.tuned {
            writeln!(f, "tier       {}: {at}, {}", self.tier(), self.tiling)?;
        }
        writeln!(
            f,
            "memory     {} bytes of samples, {} of scratch, {} of cache",
            self.samples_bytes(),
            self.scratch_bytes(),
            self.cache_bytes()
        )?;
        for (index, dispatch) in self.dispatches().iter().enumerate() {
            let separator = if index + 1 < self.dispatches().len() { "\n" } else { "" };
            write!(f, "dispatch   {dispatch}{separator}")?;
        }
        Ok(())
    }
}
