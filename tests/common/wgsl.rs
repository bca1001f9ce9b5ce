//! Queries on WGSL modules for the layout tests.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeSet;
use std::path::Path;

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, StorageAccess, TypeInner};
use wattn::{Binding, BindingKind};

/// Parses and validates.
pub(crate) fn validated(wgsl: &str, capabilities: Capabilities, what: &str) -> (Module, ModuleInfo) {
    let module =
        naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(wgsl)));
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(wgsl)));
    (module, info)
}

/// Bind group 0 and the fields of its uniforms agree with the host's descriptors.
pub(crate) fn assert_layout(module: &Module, bindings: &[Binding], what: &str) {
    let mut globals: Vec<_> = module.global_variables.iter().map(|(_, global)| global).collect();
    globals.retain(|global| global.binding.is_some());
    globals.sort_by_key(|global| global.binding.map(|binding| binding.binding));
    let kind = |space| match space {
        AddressSpace::Uniform => "uniform",
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => "write",
        AddressSpace::Storage { .. } => "read",
        space => panic!("{what}: {space:?} has a binding"),
    };
    let found: Vec<_> = globals
        .iter()
        .map(|global| {
            let binding = global.binding.unwrap();
            (binding.group, binding.binding, global.name.as_deref().unwrap(), kind(global.space))
        })
        .collect();
    let expected: Vec<_> = (0..)
        .zip(bindings)
        .map(|(at, binding)| {
            let kind = match binding.kind {
                BindingKind::Read => "read",
                BindingKind::Write => "write",
                _ => "uniform",
            };
            (0, at, binding.name, kind)
        })
        .collect();
    assert_eq!(found, expected, "{what}");

    for (global, binding) in globals.iter().zip(bindings) {
        if global.space != AddressSpace::Uniform {
            assert!(binding.fields.is_empty(), "{what}: {} has fields", binding.name);
            continue;
        }
        let TypeInner::Struct { members, span } = &module.types[global.ty].inner else {
            panic!("{what}: {} is no struct", binding.name)
        };
        let found: Vec<_> = members.iter().map(|member| (member.name.as_deref().unwrap(), member.offset)).collect();
        let expected: Vec<_> = binding.fields.iter().copied().zip((0..).step_by(4)).collect();
        assert_eq!(found, expected, "{what}: {}", binding.name);
        assert_eq!(*span as usize, 4 * members.len(), "{what}: the host struct has no padding");
    }
}

/// The entry point in SPIR-V and MSL.
pub(crate) fn translate(module: &Module, info: &ModuleInfo, entry_point: &str, spirv: (u8, u8), what: &str) {
    let options = naga::back::spv::Options { lang_version: spirv, ..Default::default() };
    let stage =
        naga::back::spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry_point.to_owned() };
    naga::back::spv::write_vec(module, info, &options, Some(&stage)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let entry_point = Some((ShaderStage::Compute, entry_point.to_owned()));
    let options = naga::back::msl::Options { lang_version: (2, 4), ..Default::default() };
    let stage = naga::back::msl::PipelineOptions { entry_point, ..Default::default() };
    naga::back::msl::write_string(module, info, &options, &stage).unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// Stems of the files with this extension in a folder of the project, without `mod`.
pub(crate) fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
    std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|stem| stem != "mod")
        .collect()
}
