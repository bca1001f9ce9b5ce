//! Few query rows against one split of their keys: `shaders/attend_decode.wgsl`. Its uniform is that of
//! `attend_prefill`.

use super::attend_prefill::AttendParams;
use super::{Binding, Kernel, own_kernel};

const BINDINGS: &[Binding] = &[
    Binding::stretch("params", AttendParams::FIELDS),
    Binding::read("q"),
    Binding::read("k"),
    Binding::read("v"),
    Binding::read("seq_lens_kv"),
    Binding::write("partial_out"),
    Binding::write("partial_lse"),
];

/// Few query rows against one split of their keys.
pub static ATTEND_DECODE: Kernel = own_kernel!("attend_decode", BINDINGS);
