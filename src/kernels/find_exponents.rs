//! Largest exponents of the heads of q, k and v: `shaders/find_exponents.wgsl`. Its uniform is that of `attend_prefill`.

use super::Binding;

pub(crate) const BINDINGS: [Binding; 6] = [
    Binding::uniform("params"),
    Binding::read("q"),
    Binding::read("k"),
    Binding::read("v"),
    Binding::read("seq_lens_kv"),
    Binding::write("exponents"),
];

/// Invocations of a workgroup, if the device allows as many.
pub(crate) const WORKGROUP_SIZE: u32 = 256;
