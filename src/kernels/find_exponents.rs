//! Largest exponents of the heads of q, k and v: `shaders/find_exponents.wgsl`. Its uniform is that of `attend_prefill`.

use super::{Binding, Kernel, own_kernel};

const BINDINGS: &[Binding] = &[Binding::read("q"), Binding::read("k"), Binding::read("v"), Binding::write("exponents")];

/// Largest exponents of the heads of q, k and v.
pub static FIND_EXPONENTS: Kernel = own_kernel!("find_exponents", BINDINGS);

/// Invocations of a workgroup, if the device allows that many.
pub(crate) const WORKGROUP_SIZE: u32 = 256;
