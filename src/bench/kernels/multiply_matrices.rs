//! Products on matrix units: `shaders/bench/multiply_matrices.wgsl`.

use half::f16;

use crate::Context;
use crate::kernels::{Binding, params};

use super::BenchKernel;

pub(super) const BINDINGS: [Binding; 4] =
    [Binding::uniform("params"), Binding::read("a"), Binding::read("b"), Binding::write("sums")];

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
    /// What every element must be: each product adds its number, from 1, in each iteration.
    pub(in crate::bench) fn counted(&self) -> f32 {
        (self.num_iterations * (1..=PRODUCTS).sum::<u32>()) as f32 // below 2^24
    }
}

/// The kernel for a device: where it was opened with matrix units, and has square tiles of f16 into f32 and subgroups of one
/// size; and the width of a tile. Else what is missing.
pub(in crate::bench) fn kernel_for(ctx: &Context) -> Result<(BenchKernel, u32), &'static str> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let features = ctx.device().features();
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16) {
        return Err("the device was not opened with matrix units");
    }
    // The size of a workgroup must be that of its subgroup.
    let info = ctx.device().adapter_info();
    if info.subgroup_min_size != info.subgroup_max_size || info.subgroup_max_size == 0 {
        return Err("the size of the device's subgroups varies");
    }
    let square = |edge: u32| {
        let tiles = &ctx.caps().matrix_tiles;
        tiles.iter().any(|tile| [tile.m, tile.n, tile.k] == [edge; 3] && (tile.ab, tile.c) == (F16, F32))
    };
    let edge =
        [16, 8].into_iter().find(|&edge| square(edge)).ok_or("the device has no square tiles of f16 into f32")?;
    Ok((BenchKernel::MultiplyMatrices { edge, subgroup_size: info.subgroup_max_size }, edge))
}

/// Operations of a workgroup in one iteration.
pub(in crate::bench) const fn operations(edge: u32) -> u64 {
    PRODUCTS as u64 * 2 * (edge as u64).pow(3)
}

/// `a`, whose rows times ones give the number of their product, and the ones.
pub(in crate::bench) fn operands(edge: u32) -> [Vec<f16>; 2] {
    let elements = (edge * edge) as usize;
    let a = (1..=PRODUCTS).flat_map(|product| vec![f16::from_f32(product as f32 / edge as f32); elements]).collect();
    [a, vec![f16::ONE; elements]]
}
