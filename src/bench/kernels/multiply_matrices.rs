//! Products on matrix units: `shaders/bench/multiply_matrices.wgsl`.

use half::f16;

use crate::kernels::{own_kernel, params};
use crate::{Binding, DeviceCaps, Kernel, Need};

use super::BenchKernel;

const BINDINGS: &[Binding] =
    &[Binding::uniform("params", MatrixParams::FIELDS), Binding::read("a"), Binding::read("b"), Binding::write("sums")];

pub(super) static MULTIPLY_MATRICES: Kernel =
    own_kernel!("bench/", "bench.", "multiply_matrices", BINDINGS).needing(&[Need::F16]);

/// Products of a subgroup.
const PRODUCTS: u32 = 4;

/// Iterations up to which the sums of f32 are exact.
pub(in crate::bench) const MAX_ITERATIONS: u32 = 1 << 20;

params! {
    /// The numbers of one dispatch.
    MatrixParams {
        num_iterations: u32,
    }
}

impl MatrixParams {
    /// The expected value of every element: each product adds its number, from 1, in each iteration.
    pub(in crate::bench) fn counted(&self) -> f32 {
        (self.num_iterations * (1..=PRODUCTS).sum::<u32>()) as f32 // below 2^24
    }
}

/// The kernel for a device, and the edge of its tiles, if it has square products of f16 into f32.
pub(in crate::bench) fn kernel_for(caps: &DeviceCaps) -> Option<(BenchKernel, u32)> {
    let edge = caps.matrix_edge()?;
    // Where there is an edge, all subgroups have one size: a workgroup is one subgroup.
    let subgroup_size = *caps.subgroup_size.as_ref()?.end();
    Some((BenchKernel::MultiplyMatrices { edge, subgroup_size }, edge))
}

/// Operations of a workgroup in one iteration.
pub(in crate::bench) const fn operations(edge: u32) -> u64 {
    PRODUCTS as u64 * 2 * (edge as u64).pow(3)
}

/// `a`, whose rows times ones give the number of their product, and a matrix of ones.
pub(in crate::bench) fn operands(edge: u32) -> [Vec<f16>; 2] {
    let elements = (edge * edge) as usize;
    let a = (1..=PRODUCTS).flat_map(|product| vec![f16::from_f32(product as f32 / edge as f32); elements]).collect();
    [a, vec![f16::ONE; elements]]
}
