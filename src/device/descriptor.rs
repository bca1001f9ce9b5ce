//! Checks that a caller's text fits its descriptor.

#[cfg(not(target_arch = "wasm32"))]
use crate::Error;
use crate::Result;
use crate::shader::Binding;

/// Compares a text with the entry point and the bindings that its kernel and modules declare.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn check_text(kernel: &'static str, bindings: &[Binding], wgsl: &str) -> Result<()> {
    let module = naga::front::wgsl::parse_str(wgsl)
        .map_err(|error| Error::Wgsl { kernel, message: error.emit_to_string(wgsl) })?;
    let is_entry = |entry: &&naga::EntryPoint| entry.name == kernel && entry.stage == naga::ShaderStage::Compute;
    if module.entry_points.iter().find(is_entry).is_none() {
        let found: Vec<_> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
        return Err(Error::EntryPoint { kernel, found: found.join(", ") });
    }
    let mut found = Vec::new();
    for (_, global) in module.global_variables.iter() {
        let Some(at) = &global.binding else { continue };
        let name = global.name.clone().unwrap_or_default();
        if at.group != 0 {
            let declared = "nothing outside bind group 0".to_owned();
            return Err(Error::Binding {
                kernel,
                binding: at.binding,
                declared,
                found: format!("`{name}` in group {}", at.group),
            });
        }
        found.push((at.binding, name, global));
    }
    for (at, binding) in (0u32..).zip(bindings) {
        let declared = || format!("{} `{}`", kind_of(binding.kind), binding.name);
        let Some((_, name, global)) = found.iter().find(|(index, ..)| *index == at) else {
            return Err(Error::Binding { kernel, binding: at, declared: declared(), found: "nothing".to_owned() });
        };
        let kind = kind_in_text(global.space);
        if (name.as_str(), kind) != (binding.name, kind_of(binding.kind)) {
            return Err(Error::Binding {
                kernel,
                binding: at,
                declared: declared(),
                found: format!("{kind} `{name}`"),
            });
        }
        if !binding.kind.is_storage() {
            check_uniform(kernel, binding, &module, global)?;
        }
    }
    match found.iter().find(|(index, ..)| *index as usize >= bindings.len()) {
        None => Ok(()),
        Some((at, name, global)) => Err(Error::Binding {
            kernel,
            binding: *at,
            declared: "nothing".to_owned(),
            found: format!("{} `{name}`", kind_in_text(global.space)),
        }),
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn check_uniform(
    kernel: &'static str,
    binding: &Binding,
    module: &naga::Module,
    global: &naga::GlobalVariable,
) -> Result<()> {
    let found = match &module.types[global.ty].inner {
        naga::TypeInner::Struct { members, span } => {
            let names: Vec<_> = members.iter().filter_map(|member| member.name.as_deref()).collect();
            let packed = members.iter().zip(0u32..).all(|(member, at)| member.offset == 4 * at);
            if names == binding.fields && packed && *span as usize == 4 * names.len() {
                return Ok(());
            }
            format!("{} in {span} bytes", names.join(", "))
        }
        _ => "no struct".to_owned(),
    };
    let declared = format!("{} in {} bytes", binding.fields.join(", "), 4 * binding.fields.len());
    Err(Error::Uniform { kernel, binding: binding.name, declared, found })
}

#[cfg(not(target_arch = "wasm32"))]
const fn kind_of(kind: crate::BindingKind) -> &'static str {
    match kind {
        crate::BindingKind::Uniform | crate::BindingKind::Stretch => "uniform",
        crate::BindingKind::Read => "read",
        crate::BindingKind::Write => "read_write",
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn kind_in_text(space: naga::AddressSpace) -> &'static str {
    match space {
        naga::AddressSpace::Uniform => "uniform",
        naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => "read_write",
        naga::AddressSpace::Storage { .. } => "read",
        _ => "neither a buffer nor a uniform",
    }
}

/// The browser's own compiler parses the text and reports errors.
#[cfg(target_arch = "wasm32")]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(crate) fn check_text(_: &'static str, _: &[Binding], _: &str) -> Result<()> {
    Ok(())
}
