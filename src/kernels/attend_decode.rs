//! Few query rows against one split of their keys: `shaders/attend_decode.wgsl`. Its uniform is that of
//! `attend_prefill`.

use super::{Binding, Kernel, own_kernel};

const BINDINGS: &[Binding] = &[Binding::read("q"), Binding::read("k"), Binding::read("v")];

/// Few query rows against one split of their keys.
pub static ATTEND_DECODE: Kernel = own_kernel!("attend_decode", BINDINGS);
