//! Modifiers of scores, from their definitions.

use crate::problem::{BatchIndex, Bias};
use crate::{AnyHostTensor, AttentionProblem, HostInputs, ScoreMod, Sinks};

/// The score of `[batch, q_index, q_head, key]` after the problem's chain.
pub(super) fn modified<T>(
    problem: &AttentionProblem,
    inputs: &HostInputs<'_, T>,
    score: f64,
    [batch, q_index, q_head, key]: [u32; 4],
) -> f64 {
    let shape = problem.shape();
    let seq_len_kv = inputs.seq_lens_kv.map_or(shape.seq_len_kv, |lens| lens[batch as usize]);
    let position = i64::from(q_index) + i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
    problem.score_mods().iter().fold(score, |score, modifier| match modifier {
        ScoreMod::Softcap(softcap) => {
            let cap = f64::from(softcap.cap());
            cap * (score / cap).tanh()
        }
        ScoreMod::Alibi(alibi) => {
            let slope = f64::from(alibi.slope(q_head, shape.num_q_heads));
            score - slope * (position - i64::from(key)).abs() as f64
        }
        ScoreMod::Bias(bias) => score + bias_of(bias, inputs.tensors, [batch, q_head, q_index, key]),
    })
}

/// The sink of a query head, if rows have any.
pub(super) fn sink<T>(problem: &AttentionProblem, inputs: &HostInputs<'_, T>, q_head: u32) -> Option<f64> {
    problem.sinks().map(|sinks| match sinks {
        Sinks::Zero => 0.0,
        Sinks::Learned(_) => {
            let tensor = inputs.tensors.iter().find(|(name, _)| *name == "sinks");
            tensor.map_or(f64::NAN, |(_, tensor)| f64::from(tensor.get(q_head as usize)))
        }
    })
}

fn bias_of(bias: &Bias, tensors: &[(&str, AnyHostTensor<'_>)], index: [u32; 4]) -> f64 {
    let Some((_, tensor)) = tensors.iter().find(|(name, _)| *name == bias.name()) else { return f64::NAN };
    let [batch, others @ ..] = index;
    let batch = match bias.batch_index() {
        BatchIndex::Each => batch,
        BatchIndex::Divided(n) => batch / n,
        BatchIndex::Modulo(n) => batch % n,
    };
    let index = [batch, others[0], others[1], others[2]];
    // An axis of size 1 serves all indices.
    let at = bias.shape().iter().zip(index).fold(0, |at, (&size, i)| at * size as usize + (i % size) as usize);
    f64::from(tensor.get(at))
}
