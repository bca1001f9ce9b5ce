//! What the layout tests of shaders ask of a module.

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

/// Bind group 0 and the fields of the uniform, which comes first where there is one, are what the host says.
pub(crate) fn assert_layout(
    module: &Module,
    bindings: &[Binding],
    params_fields: &[(&'static str, usize)],
    what: &str,
) {
    let mut globals: Vec<_> = module.global_variables.iter().map(|(_, global)| global).collect();
    globals.retain(|global| global.binding.is_some());
    globals.sort_by_key(|global| global.binding.map(|binding| binding.binding));
    let kind = |space| match space {
        AddressSpace::Uniform => BindingKind::Uniform,
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => BindingKind::Write,
        _ => BindingKind::Read,
    };
    let found: Vec<_> = globals.iter().map(|global| (global.name.as_deref().unwrap(), kind(global.space))).collect();
    let expected: Vec<_> = bindings.iter().map(|binding| (binding.name, binding.kind)).collect();
    assert_eq!(found, expected, "{what}");
    assert!(expected.len() <= 9, "{what}: WebGPU promises 8 storage buffers");

    if params_fields.is_empty() {
        assert!(expected.iter().all(|&(_, kind)| kind != BindingKind::Uniform), "{what}: a uniform without fields");
        return;
    }
    let TypeInner::Struct { members, span } = &module.types[globals[0].ty].inner else {
        panic!("{what}: the uniform is no struct")
    };
    let found: Vec<_> =
        members.iter().map(|member| (member.name.as_deref().unwrap(), member.offset as usize)).collect();
    assert_eq!(found, params_fields, "{what}");
    assert_eq!(*span as usize, 4 * members.len(), "{what}: the host struct has no padding");
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

/// Stems of the files with this extension in a folder of the project, but for `mod`.
pub(crate) fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
    std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|stem| stem != "mod")
        .collect()
}
