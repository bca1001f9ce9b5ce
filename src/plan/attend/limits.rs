//! Limits of devices, by the names that errors give them.

use crate::AttentionProblem;

/// The limit of storage buffers, with the features that need more of them than plain attention.
pub(super) const fn storage_buffers_of(problem: &AttentionProblem) -> &'static str {
    if !problem.score_mods.is_empty() {
        return if problem.blocks.is_some() {
            "max_storage_buffers_per_shader_stage (modifiers of scores, lists of blocks)"
        } else {
            "max_storage_buffers_per_shader_stage (modifiers of scores)"
        };
    }
    match (problem.blocks.is_some(), problem.seq_lens_kv, problem.lse) {
        (false, false, false) => "max_storage_buffers_per_shader_stage",
        (true, false, false) => "max_storage_buffers_per_shader_stage (lists of blocks)",
        (false, true, false) => "max_storage_buffers_per_shader_stage (key lengths)",
        (false, false, true) => "max_storage_buffers_per_shader_stage (lse)",
        (true, true, false) => "max_storage_buffers_per_shader_stage (lists of blocks, key lengths)",
        (true, false, true) => "max_storage_buffers_per_shader_stage (lists of blocks, lse)",
        (false, true, true) => "max_storage_buffers_per_shader_stage (key lengths, lse)",
        (true, true, true) => "max_storage_buffers_per_shader_stage (lists of blocks, key lengths, lse)",
    }
}
