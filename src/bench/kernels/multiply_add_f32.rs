//! Multiplications and additions of f32 vectors: `shaders/bench/multiply_add_f32.wgsl`.

use crate::kernels::{Binding, params};

pub(super) const BINDINGS: [Binding; 2] = [Binding::uniform("params"), Binding::write("sums")];

/// Chains of an invocation, and steps of an iteration.
pub(in crate::bench) const CHAINS: u32 = 8;
const STEPS: u32 = 2;

/// Operations of one invocation in one iteration: a step multiplies and adds four lanes of each chain.
pub(in crate::bench) const OPERATIONS: u64 = (CHAINS * STEPS * 4 * 2) as u64;

/// Iterations up to which the sums of f32 are exact.
pub(in crate::bench) const MAX_ITERATIONS: u32 = 1 << 19;

params! {
    /// The numbers of one dispatch, of this kernel and of `multiply_add_f16`.
    RateParams {
        num_iterations: u32,
        factor: f32,
        addend: f32,
    }
}

impl RateParams {
    /// Chains that count their steps: their sum says how many there were, and no compiler knows the numbers.
    pub(in crate::bench) const fn counting(num_iterations: u32) -> Self {
        Self { num_iterations, factor: 1.0, addend: 1.0 }
    }

    /// What an invocation must give for chains that count, each rounded to a whole number below `limit`, where a type
    /// stops counting.
    pub(in crate::bench) fn counted(&self, invocation: u32, limit: f32) -> f32 {
        let steps = (self.num_iterations * STEPS) as f32; // below 2^24, as the sums are
        (0..CHAINS).map(|chain| ((invocation % 4 + chain) as f32 + steps).min(limit)).sum()
    }
}
