//! Every variant of the kernels of language models, as text: valid WGSL within WebGPU's default limits, translatable to SPIR-V, MSL and
//! HLSL, and laid out as the host expects. Needs no GPU.

#[path = "common/wgsl.rs"]
mod wgsl;

use std::collections::BTreeSet;
use std::path::Path;

use naga::valid::Capabilities;
use naga::{AddressSpace, ShaderStage};
use wattn::lm::{LmVariant, WeightElem, kernels as lm_kernels};

#[test]
fn every_variant_is_laid_out_as_the_host_believes() {
    for variant in LmVariant::all().into_iter() {
        check(variant);
    }
}

fn check(variant: LmVariant) {
    let (kernel, what) = (variant.kernel, format!("{variant:?}"));
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SHADER_FLOAT16, variant.elem == WeightElem::F16);
    let (module, info) = wgsl::validated(&variant.wgsl(), capabilities, &what);
    assert_eq!(module.entry_points.len(), 1, "{what}");
    let entry = &module.entry_points[0];
    assert_eq!(entry.name, kernel.name(), "{what}");
    assert_eq!(kernel.label(), format!("wattn.lm.{}", kernel.name()));
    assert!(entry.workgroup_size.iter().product::<u32>() <= 256, "{what}");

    let globals: Vec<_> = module.global_variables.iter().map(|(_, global)| global).collect();
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let shared = globals.iter().filter(|global| global.space == AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|global| layouter[global.ty].size.next_multiple_of(16)).sum();
    assert!(bytes <= 16 << 10, "{what}: {bytes} bytes of workgroup memory");

    wgsl::assert_layout(&module, &variant.specialization().bindings(), &what);

    wgsl::translate(&module, &info, kernel.name(), (1, 3), &what);
    let entry_point = Some((ShaderStage::Compute, kernel.name().to_owned()));
    let options = naga::back::hlsl::Options { shader_model: naga::back::hlsl::ShaderModel::V6_2, ..Default::default() };
    let stage = naga::back::hlsl::PipelineOptions { entry_point };
    naga::back::hlsl::Writer::new(&mut String::new(), &options, &stage)
        .write(&module, &info, None)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn a_kernel_is_one_stem_in_four_places() {
    let kernels: BTreeSet<String> = lm_kernels::ALL.iter().map(|kernel| kernel.name().to_owned()).collect();
    assert_eq!(wgsl::stems("shaders/lm", "wgsl"), kernels);
    assert_eq!(wgsl::stems("src/lm/kernels", "rs"), kernels);
    assert_eq!(wgsl::stems("src/lm/cpu", "rs"), kernels);
    let tests = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu_lm.rs")).unwrap();
    for kernel in kernels {
        assert!(tests.contains(&format!("twins::{kernel}(")), "no GPU test compares with twins::{kernel}");
    }
}

/// The models call attention through items that any user of the crate can call.
#[test]
fn attention_comes_through_the_public_interface_only() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lm")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for inside in ["ops", "plan", "problem", "pipeline", "shader", "tensor", "context", "caps"] {
                let (call, import) = (format!("crate::{inside}::"), format!("crate::{{{inside}::"));
                assert!(!text.contains(&call) && !text.contains(&import), "{} uses {call}", path.display());
            }
        }
    }
}
