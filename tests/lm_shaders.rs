//! Every variant of the kernels of language models, as text: valid WGSL within WebGPU's default limits, translatable to
//! SPIR-V, MSL and HLSL, and laid out as the host believes. Needs no GPU.

use std::collections::BTreeSet;
use std::path::Path;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ShaderStage, StorageAccess, TypeInner};
use wattn::BindingKind;
use wattn::lm::{LmKernel, LmVariant, WeightElem};

#[test]
fn every_variant_is_laid_out_as_the_host_believes() {
    for variant in LmKernel::ALL.into_iter().flat_map(LmKernel::variants) {
        check(variant);
    }
}

fn check(variant: LmVariant) {
    let (kernel, wgsl, what) = (variant.kernel, variant.wgsl(), format!("{variant:?}"));
    let module =
        naga::front::wgsl::parse_str(&wgsl).unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(&wgsl)));
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SHADER_FLOAT16, variant.elem == WeightElem::F16);
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(&wgsl)));
    assert_eq!(module.entry_points.len(), 1, "{what}");
    let entry = &module.entry_points[0];
    assert_eq!(entry.name, kernel.name(), "{what}");
    assert!(entry.workgroup_size.iter().product::<u32>() <= 256, "{what}");

    let mut globals: Vec<_> = module.global_variables.iter().map(|(_, global)| global).collect();
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let shared = globals.iter().filter(|global| global.space == AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|global| layouter[global.ty].size.next_multiple_of(16)).sum();
    assert!(bytes <= 16 << 10, "{what}: {bytes} bytes of workgroup memory");

    globals.retain(|global| global.binding.is_some());
    globals.sort_by_key(|global| global.binding.map(|binding| binding.binding));
    let kind = |space| match space {
        AddressSpace::Uniform => BindingKind::Uniform,
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => BindingKind::Write,
        _ => BindingKind::Read,
    };
    let found: Vec<_> = globals.iter().map(|global| (global.name.as_deref().unwrap(), kind(global.space))).collect();
    let expected: Vec<_> = kernel.bindings().iter().map(|binding| (binding.name, binding.kind)).collect();
    assert_eq!(found, expected, "{what}");
    assert!(expected.len() <= 9, "{what}: WebGPU promises 8 storage buffers");

    let TypeInner::Struct { members, span } = &module.types[globals[0].ty].inner else {
        panic!("{what}: the uniform is no struct")
    };
    let found: Vec<_> =
        members.iter().map(|member| (member.name.as_deref().unwrap(), member.offset as usize)).collect();
    assert_eq!(found, kernel.params_fields(), "{what}");
    assert_eq!(*span as usize, 4 * members.len(), "{what}: the host struct has no padding");

    let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    let stage =
        naga::back::spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: kernel.name().to_owned() };
    naga::back::spv::write_vec(&module, &info, &options, Some(&stage))
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let entry_point = Some((ShaderStage::Compute, kernel.name().to_owned()));
    let options = naga::back::msl::Options { lang_version: (2, 4), ..Default::default() };
    let stage = naga::back::msl::PipelineOptions { entry_point: entry_point.clone(), ..Default::default() };
    naga::back::msl::write_string(&module, &info, &options, &stage).unwrap_or_else(|error| panic!("{what}: {error}"));
    let options = naga::back::hlsl::Options { shader_model: naga::back::hlsl::ShaderModel::V6_2, ..Default::default() };
    let stage = naga::back::hlsl::PipelineOptions { entry_point };
    naga::back::hlsl::Writer::new(&mut String::new(), &options, &stage)
        .write(&module, &info, None)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn a_kernel_is_one_stem_in_four_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stems = |folder: &str, extension: &str| -> BTreeSet<String> {
        std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .filter(|stem| stem != "mod")
            .collect()
    };
    let kernels: BTreeSet<String> = LmKernel::ALL.iter().map(|kernel| kernel.name().to_owned()).collect();
    assert_eq!(stems("shaders/lm", "wgsl"), kernels);
    assert_eq!(stems("src/lm/kernels", "rs"), kernels);
    assert_eq!(stems("src/lm/cpu", "rs"), kernels);
    let tests = std::fs::read_to_string(root.join("tests/gpu_lm.rs")).unwrap();
    for kernel in kernels {
        assert!(tests.contains(&format!("twins::{kernel}(")), "no GPU test compares with twins::{kernel}");
    }
}

/// Attention of the models is what any user of the crate can call.
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
