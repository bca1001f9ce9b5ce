//! A plan of attention as a table.

use super::AttentionPlan;
use crate::{BlockListSpec, Tier};

impl core::fmt::Display for AttentionPlan {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let shape = self.problem.shape();
        writeln!(
            f,
            "attention  batch {} x q {} x kv {}, heads {}/{}, width {}/{}, {} -> {}, {}",
            shape.batch_size,
            shape.seq_len_q,
            shape.seq_len_kv,
            shape.num_q_heads,
            shape.num_kv_heads,
            shape.head_dim,
            shape.head_dim_v,
            self.problem.dtype,
            self.problem.out_dtype,
            self.problem.mask,
        )?;
        writeln!(
            f,
            "tier       {}: {}tiles of {} rows x {} keys, {} split(s), f32 accumulation",
            self.tier,
            self.tuned.map_or_else(String::new, |at| format!("{at}, ")),
            self.tiling.tile_q(),
            self.tiling.tile_kv(),
            self.tiling.num_splits,
        )?;
        writeln!(f, "loads      {}", self.loads())?;
        if self.problem.bf16_by_f16_matrices {
            let scaled = "bf16 as f16, each head scaled by a power of two";
            let stored = "bf16 as stored: f16 matrices are allowed, and not taken";
            writeln!(f, "factors    {}", if self.tier.matrix() { scaled } else { stored })?;
        }
        let mods = self.problem.score_mods().iter().map(ToString::to_string);
        let scores: Vec<_> = mods.chain(self.problem.sinks.map(|sinks| sinks.to_string())).collect();
        if !scores.is_empty() {
            writeln!(f, "scores     {}", scores.join(", "))?;
        }
        if let Some(reason) = &self.matrix_fault {
            writeln!(f, "not taken  {}: {reason}", Tier::Matrix)?;
        }
        if let Some(missed) = &self.missed {
            writeln!(f, "missed     {missed}")?;
        }
        let storage = self.storage_bytes;
        if let Some(blocks) = &self.problem.blocks {
            let BlockListSpec { granularity, block_size_q, block_size, max_blocks, .. } = blocks;
            let BlockListSpec { sink_size, window_size, dense_below, .. } = blocks;
            writeln!(
                f,
                "blocks     {max_blocks} x {block_size} keys for {block_size_q} queries, a list for each {granularity}; \
                 {sink_size} sinks, window {window_size}, dense below {dense_below}",
            )?;
        }
        writeln!(f, "memory     {} bytes of workspace, {storage} of a workgroup's own", self.workspace_bytes())?;
        for (index, dispatch) in self.dispatches.iter().enumerate() {
            let separator = if index + 1 < self.dispatches.len() { "\n" } else { "" };
            write!(f, "dispatch   {dispatch}{separator}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Alibi, AttentionPlan, AttentionProblem, AttentionShape, Bias, DType, DeviceCaps, Sinks, Softcap};

    #[test]
    fn plans_print_what_scores_pass_through() {
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q: 9,
            seq_len_kv: 9,
            num_q_heads: 2,
            num_kv_heads: 1,
            head_dim: 8,
            head_dim_v: 8,
        };
        let problem = AttentionProblem::new(shape, DType::F32)
            .with_score_mod(Softcap::new(50.0))
            .with_score_mod(Alibi::published())
            .with_score_mod(Bias::new("mask", [1, 1, 9, 9], DType::F16))
            .with_sinks(Sinks::Learned(DType::BF16));
        let plan = AttentionPlan::new(&problem, &DeviceCaps::BASELINE).unwrap().to_string();
        let expected = "\nscores     softcap 50, alibi, bias `mask` [1, 1, 9, 9] f16, learned sinks bf16\n";
        assert!(plan.contains(expected), "{plan}");
    }
}
