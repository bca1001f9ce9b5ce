//! A product of matrices whose result is known: `shaders/check/check_matrices.wgsl`.

use super::{Binding, Kernel, own_kernel};

const BINDINGS: &[Binding] = &[Binding::read("operands"), Binding::write("found")];

/// A product of matrices whose result is known.
pub static CHECK_MATRICES: Kernel = own_kernel!("check/", "", "check_matrices", BINDINGS);
