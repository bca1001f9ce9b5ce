//! Every variant of every kernel, as text: valid WGSL for the features of its tier, translatable to SPIR-V, MSL and HLSL, and laid out as
//! the host expects. Needs no GPU.

#[path = "common/variants.rs"]
mod variants;
#[path = "common/wgsl.rs"]
mod wgsl;

use std::collections::BTreeSet;

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, TypeInner};
use variants::{Variant, variants};
use wattn::{Kernel, Specialization, kernels};

/// Parses and validates with the capabilities that the tier promises and no others, besides u64 where the device has it and the tier is not
/// plain WGSL.
fn validate(wgsl: &str, Variant { caps, tier, .. }: &Variant, what: &str) -> (Module, ModuleInfo) {
    let module =
        naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(wgsl)));
    // unpack2x16float is part of WebGPU; naga counts it as a capability because OpenGL ES 3.0 lacks it.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SHADER_FLOAT16, tier.shader_f16());
    capabilities.set(Capabilities::SUBGROUP, tier.subgroup());
    capabilities.set(Capabilities::SHADER_INT64, tier.subgroup() && caps.software && caps.shader_int64);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, tier.matrix());
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(wgsl)));
    (module, info)
}

fn check_bindings(module: &Module, specialization: &Specialization, what: &str) {
    wgsl::assert_layout(module, &specialization.bindings(), what);
    let storage = specialization.bindings().iter().filter(|binding| binding.kind.is_storage()).count();
    let has = |name| specialization.modules().any(|module| module.name() == name);
    // One for each tensor of modifiers and sinks.
    let reads_tensor = |module: &&wattn::Module| module.family() == "number" || module.name() == "modifier_alibi";
    let tensors = specialization.modules().filter(reads_tensor).count();
    // Four, and one for each feature: two for lists, one for lengths, one for lse, one for walks that prefill cuts. Splits write into the
    // workspace, which is bound anyway.
    let kernel = specialization.kernel();
    if [&kernels::ATTEND_PREFILL, &kernels::ATTEND_DECODE].contains(&kernel) {
        let prefill = kernel == &kernels::ATTEND_PREFILL;
        let features = [has("walk_selected"), has("walk_selected"), has("lengths_listed"), has("lse_stored")];
        let workspace = prefill && has("workspace");
        let expected = 4 + tensors + features.into_iter().chain([workspace]).filter(|&has| has).count();
        assert_eq!(storage, expected, "{what}");
        assert!(prefill || storage <= 7 + tensors, "{what}");
    }
    let promised = if has("walk_selected") && has("resume_state") { 9 } else { 8 };
    // With more tensors a plan may be refused.
    assert!(storage <= promised.max(7 + tensors), "{what}: WebGPU promises 8 storage buffers");
}

/// Bytes of an address space's variables, each at its alignment.
fn bytes_of(module: &Module, space: AddressSpace) -> u64 {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let variables = module.global_variables.iter().filter(|(_, global)| global.space == space);
    // WebGPU's rule: each size is rounded up to 16.
    variables.map(|(_, global)| u64::from(layouter[global.ty].size.next_multiple_of(16))).sum()
}

/// Drivers place a variable of workgroup memory at the alignment of its elements, in an order of their own, and matrices are loaded from
/// multiples of 16 bytes: an H100 drops the low bits of other addresses. So the sizes of all variables, and the strides of matrices' rows,
/// are multiples of 16, which makes every order right.
fn check_alignment(module: &Module, specialization: &Specialization, what: &str) {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    for (_, global) in module.global_variables.iter().filter(|(_, global)| global.space == AddressSpace::WorkGroup) {
        let (name, size) = (global.name.as_deref().unwrap(), layouter[global.ty].size);
        assert!(size.is_multiple_of(16), "{what}: {name} has {size} bytes, and what comes after it may lie anywhere");
    }
    // In vec4, of f16 and of f32.
    for (stride, bytes) in [("A_STRIDE4", 8), ("K_STRIDE4", 8), ("V_STRIDE4", 8), ("SUMS_STRIDE4", 16)] {
        let stride_bytes = specialization.constant(stride).map(|stride| stride * bytes);
        assert!(stride_bytes.is_none_or(|stride| stride.is_multiple_of(16)), "{what}: {stride} {stride_bytes:?}");
    }
}

fn translate(module: &Module, info: &ModuleInfo, kernel: &Kernel, what: &str) {
    let entry = || (ShaderStage::Compute, kernel.name().to_owned());
    let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    let pipeline = naga::back::spv::PipelineOptions { shader_stage: entry().0, entry_point: entry().1 };
    naga::back::spv::write_vec(module, info, &options, Some(&pipeline))
        .unwrap_or_else(|error| panic!("{what}: {error}"));

    let options = naga::back::msl::Options { lang_version: (2, 4), ..Default::default() };
    let pipeline = naga::back::msl::PipelineOptions { entry_point: Some(entry()), ..Default::default() };
    naga::back::msl::write_string(module, info, &options, &pipeline).unwrap_or_else(|error| panic!("{what}: {error}"));

    // No other back end has matrices.
    if module.types.iter().any(|(_, ty)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. })) {
        return;
    }
    let options = naga::back::hlsl::Options { shader_model: naga::back::hlsl::ShaderModel::V6_2, ..Default::default() };
    let pipeline = naga::back::hlsl::PipelineOptions { entry_point: Some(entry()) };
    let mut text = String::new();
    naga::back::hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn every_variant_is_laid_out_as_the_host_believes() {
    let variants = variants();
    for variant in &variants {
        let Variant { specialization, tier, tiling, storage, .. } = variant;
        let kernel = specialization.kernel();
        let what = format!("{} {tier} {specialization}", kernel.name());
        let rolled = specialization.wgsl_rolled();
        let (module, info) = validate(&rolled, variant, &what);

        assert_eq!(module.entry_points.len(), 1, "{what}");
        let entry = &module.entry_points[0];
        assert_eq!((entry.name.as_str(), entry.stage), (kernel.name(), ShaderStage::Compute), "{what}");
        check_bindings(&module, specialization, &what);
        if tier.matrix() && ![&kernels::MERGE_SPLITS, &kernels::FIND_EXPONENTS].contains(&kernel) {
            check_alignment(&module, specialization, &what);
        }
        translate(&module, &info, kernel, &what);
        assert_eq!(entry.workgroup_size[1..], [1, 1], "{what}");
        if let Some(tiling) = tiling {
            assert_eq!(entry.workgroup_size[0], tiling.workgroup_size(), "{what}");
        }
        match *storage {
            Some(promised) => {
                let declared = bytes_of(&module, AddressSpace::WorkGroup);
                assert!(declared <= promised, "{what}: {declared} bytes of workgroup memory, {promised} promised");
                let most = if tier.matrix() { 48 << 10 } else { 16 << 10 };
                assert!(promised <= most, "{what}: {promised} bytes of workgroup memory");
            }
            None => assert_eq!(bytes_of(&module, AddressSpace::WorkGroup), 0, "{what}"),
        }
        assert!(bytes_of(&module, AddressSpace::Private) <= 8 << 10, "{what}: more than WebGPU allows");
        let code: String = rolled.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        assert!(tier.subgroup() || !code.contains("subgroup"), "{what}");
        assert!(tier.matrix() || !code.contains("coop"), "{what}");
        // As a whole word, since functions may contain it in their names.
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(tier.shader_f16() || words.all(|word| word != "f16"), "{what}");
    }
    let names: BTreeSet<_> = variants.iter().map(|variant| variant.specialization.kernel().name()).collect();
    assert_eq!(names, kernels::ALL.iter().map(|kernel| kernel.name()).collect());
    println!("{} variants", variants.len());
}

/// The text that drivers get has its loops unrolled, and is long: every kernel, module and tiling once.
#[test]
fn the_unrolled_text_is_the_same_shader() {
    let mut seen = BTreeSet::new();
    for variant in variants() {
        let Variant { specialization, tier, tiling, .. } = &variant;
        let software = variant.caps.software;
        let modules: Vec<_> = specialization.modules().map(|module| module.name()).collect();
        let sizes = tiling.map(|tiling| (tiling.lanes, tiling.rows, tiling.groups));
        // The number of rows decides the length of the text; above 8, one tiling of each family is enough.
        let sizes = sizes.filter(|&(_, rows, _)| rows <= 8);
        if !seen.insert((specialization.kernel().name(), modules, sizes, software)) {
            continue;
        }
        let kernel = specialization.kernel();
        let what = format!("unrolled {} {tier} {specialization}", kernel.name());
        let wgsl = specialization.wgsl();
        assert!(!wgsl.lines().any(|line| line.ends_with("{ // unroll")), "{what}: a marked loop is left");
        assert!(software || !wgsl.contains("{ // unroll"), "{what}: a marked loop is left");
        let (module, info) = validate(&wgsl, &variant, &what);
        let (rolled, _) = validate(&specialization.wgsl_rolled(), &variant, &what);
        check_bindings(&module, specialization, &what);
        assert_eq!(bytes_of(&module, AddressSpace::WorkGroup), bytes_of(&rolled, AddressSpace::WorkGroup), "{what}");
        translate(&module, &info, kernel, &what);
    }
}

/// Each module lies in the folder of its family under its name, every file is a module, and each module is part of some plan.
#[test]
fn every_module_is_part_of_a_plan() {
    let used: BTreeSet<&str> = variants()
        .iter()
        .flat_map(|variant| variant.specialization.modules().map(|module| module.name()).collect::<Vec<_>>())
        .collect();
    let described: BTreeSet<&str> = kernels::modules::ALL.iter().map(|module| module.name()).collect();
    assert_eq!(used, described);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let paths: BTreeSet<String> = kernels::modules::ALL
        .iter()
        .map(|module| {
            let member = module.name().strip_prefix(module.family()).and_then(|rest| rest.strip_prefix('_'));
            let path = format!("{}/{}.wgsl", module.family(), member.unwrap_or(module.name()));
            assert_eq!(std::fs::read_to_string(root.join(&path)).unwrap(), module.wgsl(), "{path}");
            path
        })
        .collect();
    let mut files = BTreeSet::new();
    for folder in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        // These have kernels of their own.
        if ["lm", "bench", "check"].iter().any(|name| folder.ends_with(name)) {
            continue;
        }
        for file in std::fs::read_dir(&folder).unwrap() {
            files.insert(file.unwrap().path().strip_prefix(&root).unwrap().display().to_string());
        }
    }
    assert_eq!(paths, files);
}
