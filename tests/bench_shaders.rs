//! The kernels that measure ceilings: valid WGSL, laid out as the host expects, and right on every adapter.

#[path = "common/mod.rs"]
mod common;
#[path = "common/variants.rs"]
mod variants;
#[path = "common/wgsl.rs"]
mod wgsl;

use std::collections::BTreeSet;

use naga::valid::Capabilities;
use variants::bench_kernels;
use wattn::bench::{BenchKernel, Scalar, verify_kernel};

#[test]
fn every_kernel_is_laid_out_as_the_host_believes() {
    for kernel in bench_kernels() {
        let what = format!("{kernel:?}");
        let matrices = matches!(kernel, BenchKernel::MultiplyMatrices { .. });
        let mut capabilities = Capabilities::empty();
        capabilities.set(Capabilities::SHADER_FLOAT16, matrices || kernel == BenchKernel::MultiplyAdd(Scalar::F16));
        capabilities.set(Capabilities::COOPERATIVE_MATRIX, matrices);
        let (module, info) = wgsl::validated(&kernel.wgsl(), capabilities, &what);
        assert_eq!(module.entry_points.len(), 1, "{what}");
        let entry = &module.entry_points[0];
        assert_eq!(entry.name, kernel.name(), "{what}");
        assert_eq!(entry.workgroup_size, [kernel.workgroup_size(), 1, 1], "{what}");
        assert_eq!(kernel.kernel().label(), format!("wattn.bench.{}", kernel.name()));
        wgsl::assert_layout(&module, &kernel.specialization().bindings(), &what);
        // The SPIR-V of matrices needs its Vulkan memory model.
        wgsl::translate(&module, &info, kernel.name(), (1, 6), &what);
    }
}

#[test]
fn a_kernel_is_one_stem_in_two_places() {
    let names: BTreeSet<String> = bench_kernels().into_iter().map(|kernel| kernel.name().to_owned()).collect();
    assert_eq!(wgsl::stems("shaders/bench", "wgsl"), names);
    assert_eq!(wgsl::stems("src/bench/kernels", "rs"), names);
}

/// Nothing is timed. f16 is tested too, although software devices are slow at it.
#[test]
fn every_kernel_computes_what_it_says() {
    for ctx in common::gpu::contexts() {
        let name = ctx.describe();
        let run = |kernel, work| verify_kernel(ctx, kernel, work).unwrap_or_else(|error| panic!("{name}: {error}"));
        for mib in [1, 3] {
            run(BenchKernel::CopyWords, mib);
        }
        for iterations in [0, 1, 5] {
            run(BenchKernel::MultiplyAdd(Scalar::F32), iterations);
            if ctx.caps().shader_f16 {
                run(BenchKernel::MultiplyAdd(Scalar::F16), iterations);
            }
        }
        if ctx.caps().shader_f16 {
            run(BenchKernel::MultiplyAdd(Scalar::F16), 1030); // more than 2048 steps, where f16 can no longer count by ones
        }
        let features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
        if let (true, Some(size)) = (ctx.device().features().contains(features), &ctx.caps().subgroup_size) {
            let types = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
            let tiles = ctx.caps().matrix_tiles.iter().filter(|tile| (tile.ab, tile.c) == types);
            for tile in tiles.filter(|tile| [tile.n, tile.k] == [tile.m; 2]) {
                run(BenchKernel::MultiplyMatrices { edge: tile.m, subgroup_size: *size.end() }, 5);
            }
        } else {
            println!("{name}: no matrix units, their kernel is translated and validated only");
        }
    }
}
