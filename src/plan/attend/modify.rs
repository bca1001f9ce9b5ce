//! The modules that modify scores.

use crate::kernels::modules;
use crate::plan::modules::number_module;
use crate::problem::{AttentionProblem, ScoreMod};
use crate::shader::{Module, Specialization, Taken};

/// The names under which the modifiers of a chain are taken, by their places.
pub(crate) const PLACES: [&str; AttentionProblem::MAX_SCORE_MODS] =
    ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"];

/// Adds the problem's modifiers to the variant of a kernel. Without any, scores are scaled.
pub(super) fn add_modifiers(specialization: &mut Specialization, problem: &AttentionProblem) {
    let mods = problem.score_mods();
    if mods.is_empty() {
        specialization.push(&modules::MODIFY_NONE);
        return;
    }
    specialization.push(&modules::MODIFY_CHAIN);
    specialization.switches.insert("HIDES_KEYS", mods.iter().any(ScoreMod::hides_keys));
    if mods.iter().any(|modifier| matches!(modifier, ScoreMod::Softcap(_))) {
        specialization.push(&modules::TANH);
    }
    for (place, modifier) in PLACES.into_iter().zip(mods) {
        specialization.chain.push(place);
        let mut take = |module: &'static Module| specialization.push(Taken::for_tensor(place, module));
        match modifier {
            ScoreMod::Softcap(_) => take(&modules::MODIFIER_SOFTCAP),
            ScoreMod::Alibi(_) => take(&modules::MODIFIER_ALIBI),
            ScoreMod::Bias(bias) => {
                take(number_module(bias.dtype()));
                take(&modules::MODIFIER_BIAS);
            }
        }
    }
}
