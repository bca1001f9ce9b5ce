//! Multiplications and additions of f16 vectors: `shaders/bench/multiply_add_f16.wgsl`.

use crate::kernels::Binding;

pub(super) const BINDINGS: [Binding; 2] = super::multiply_add_f32::BINDINGS;

/// Where counting in f16 stops: 2049 is a tie between 2048 and 2050, and goes to the even one.
pub(in crate::bench) const LIMIT: f32 = 2048.0;
