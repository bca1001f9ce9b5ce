//! Multiplications and additions of vectors: `shaders/bench/multiply_add.wgsl`.

use crate::kernels::{own_kernel, params};
use crate::{Binding, Kernel};

const BINDINGS: &[Binding] = &[Binding::uniform("params", RateParams::FIELDS), Binding::write("sums")];

pub(super) static MULTIPLY_ADD: Kernel = own_kernel!("bench/", "bench.", "multiply_add", BINDINGS);

/// Chains of an invocation, and steps of an iteration.
pub(in crate::bench) const CHAINS: u32 = 8;
const STEPS: u32 = 2;

/// Operations of one invocation in one iteration: a step multiplies and adds four lanes of each chain.
pub(in crate::bench) const OPERATIONS: u64 = (CHAINS * STEPS * 4 * 2) as u64;

/// Iterations up to which the sums of f32 are exact.
pub(in crate::bench) const MAX_ITERATIONS: u32 = 1 << 19;

/// The type that is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scalar {
    /// f32.
    F32,
    /// f16. Needs `SHADER_F16`.
    F16,
}

impl Scalar {
    /// The largest count: in f16 2049 is a tie between 2048 and 2050, and rounds to the even one, 2048. Counts of f32 stay below its own
    /// limit, 2^24.
    const fn limit(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => 2048.0,
        }
    }
}

params! {
    /// The numbers of one dispatch.
    RateParams {
        num_iterations: u32,
        factor: f32,
        addend: f32,
    }
}

impl RateParams {
    /// Chains that count their steps: each sum is the number of steps, and no compiler can know the numbers.
    pub(in crate::bench) const fn counting(num_iterations: u32) -> Self {
        Self { num_iterations, factor: 1.0, addend: 1.0 }
    }

    /// The result of an invocation whose chains count.
    pub(in crate::bench) fn counted(&self, invocation: u32, scalar: Scalar) -> f32 {
        let steps = (self.num_iterations * STEPS) as f32;
        (0..CHAINS).map(|chain| ((invocation % 4 + chain) as f32 + steps).min(scalar.limit())).sum()
    }
}
