//! What `modify/chain.wgsl` and the family `modifier` do.

use crate::problem::AttentionProblem;
use crate::{HostInputs, LEAST_SCORE, LSE_EMPTY, ScoreMod, Sinks};
use core::f32::consts::LOG2_E;

/// The score of `[batch, head, query, key]` in base 2, or [`LSE_EMPTY`] where the key is hidden.
pub(super) fn modified<T>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    score: f32,
    [batch, head, q_index, key]: [u32; 4],
) -> f32 {
    let mods = problem.score_mods();
    if mods.is_empty() {
        return score;
    }
    let seq_len_kv = inputs.seq_lens_kv.map_or(problem.shape().seq_len_kv, |lens| lens[batch as usize]);
    let position = (q_index + seq_len_kv) as i32 - problem.shape().seq_len_q as i32;
    let mut score = score;
    for modifier in mods {
        score = match modifier {
            ScoreMod::Softcap(softcap) => softcap.cap() * (score * (1.0 / softcap.cap())).tanh(),
            ScoreMod::Alibi(alibi) => {
                let slope = alibi.slope(head, problem.shape().num_q_heads);
                score - slope * (position - key as i32).abs() as f32
            }
            ScoreMod::Bias(bias) => {
                let batch = bias.batch_index().of(batch);
                let [batches, heads, queries, keys] = bias.shape();
                let row = (batch % batches * heads + head % heads) * queries + q_index % queries;
                let tensor = inputs.tensors.iter().find(|(name, _)| *name == bias.name());
                score + tensor.map_or(f32::NAN, |(_, tensor)| tensor.get((row * keys + key % keys) as usize))
            }
        };
    }
    if mods.iter().any(ScoreMod::hides_keys) && score <= LEAST_SCORE { LSE_EMPTY } else { score * LOG2_E }
}

/// What the family `sink` does at the end of a row, with an lse in place of a sum and its reference.
pub(super) fn add_sink<T>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    head: u32,
    lse: f32,
    out: &mut [f32],
) {
    let sink = match problem.sinks() {
        None => return,
        Some(Sinks::Zero) => 0.0,
        Some(Sinks::Learned(_)) => {
            let tensor = inputs.tensors.iter().find(|(name, _)| *name == Sinks::NAME);
            tensor.map_or(f32::NAN, |(_, tensor)| tensor.get(head as usize))
        }
    };
    let total = 1.0 + (sink - lse).exp();
    out.iter_mut().for_each(|x| *x /= total);
}
