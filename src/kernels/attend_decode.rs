//! Few query rows against one split of their keys: `shaders/attend_decode.wgsl`. Its uniform is that of
//! `attend_prefill`.

use super::Binding;

pub(crate) const BINDINGS: [Binding; 7] = [
    Binding::uniform("params"),
    Binding::read("q"),
    Binding::read("k"),
    Binding::read("v"),
    Binding::read("seq_lens_kv"),
    Binding::write("partial_out"),
    Binding::write("partial_lse"),
];
