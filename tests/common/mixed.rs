//! Variants of attention whose q, k and v have different formats. Plans take one format for all three.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use wattn::kernels::modules::{self, CHUNK_ONE};
use wattn::{Module, Specialization};

/// Formats of q, k and v: each of them for each tensor, without and with `SHADER_F16`.
pub const FORMATS: [[&Module; 3]; 5] = [
    [&modules::ELEM_F32, &modules::ELEM_F16_PACKED, &modules::ELEM_BF16],
    [&modules::ELEM_BF16, &modules::ELEM_F32, &modules::ELEM_F16_PACKED],
    [&modules::ELEM_F16_PACKED, &modules::ELEM_BF16, &modules::ELEM_F32],
    [&modules::ELEM_F32, &modules::ELEM_F16, &modules::ELEM_BF16],
    [&modules::ELEM_F16, &modules::ELEM_BF16, &modules::ELEM_F16_PACKED],
];

/// A variant that reads q, k and v in these formats. Two vec4 are one load only where they are four words.
pub fn mixed(specialization: &Specialization, formats: [&'static Module; 3]) -> Specialization {
    let mut mixed = specialization.clone();
    for (tensor, format) in ["q", "k", "v"].into_iter().zip(formats) {
        mixed = mixed.replacing_for(tensor, format);
        let in_words = [&modules::ELEM_F16_PACKED, &modules::ELEM_BF16].contains(&format);
        let per_load = if tensor == "k" { "K_PER_LOAD" } else { "V_PER_LOAD" };
        if !in_words && tensor != "q" && mixed.constant(per_load).is_some() {
            mixed = mixed.replacing_for(tensor, &CHUNK_ONE).with_constant(per_load, 1);
        }
    }
    mixed
}

/// Whether the variant has a format for each tensor, and takes any.
pub fn takes_any_format(specialization: &Specialization) -> bool {
    let has = |name| specialization.modules().any(|module| module.name() == name);
    specialization.modules_for("q").next().is_some() && !has("factors_stored")
}
