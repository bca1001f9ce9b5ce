//! The host's side of a binding.

/// One entry of bind group 0: the name of its WGSL variable, and what it is bound as. Its number is that of its place among the
/// bindings of a kernel and its modules, and the text has it as a constant: `x` is declared `@group(0) @binding(X_BINDING)`.
///
/// ```
/// use wattn::Binding;
/// static BINDINGS: [Binding; 3] =
///     [Binding::uniform("params", &["len", "factor"]), Binding::read("x"), Binding::write("y")];
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Binding {
    /// The name of the WGSL variable.
    pub name: &'static str,
    /// What it is bound as.
    pub kind: BindingKind,
    /// Of a uniform, the fields of its struct in order: scalars of four bytes.
    pub fields: &'static [&'static str],
}

/// The address space and access of a [`Binding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BindingKind {
    /// `var<uniform>`: the numbers of a call.
    Uniform,
    /// `var<uniform>`: what is different in each stretch of a grid.
    Stretch,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

impl BindingKind {
    /// Whether it counts among the storage buffers of a device.
    #[must_use]
    pub const fn is_storage(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

impl Binding {
    /// `var<uniform>`: a struct of scalars of four bytes each, with these names.
    #[must_use]
    pub const fn uniform(name: &'static str, fields: &'static [&'static str]) -> Self {
        Self { name, kind: BindingKind::Uniform, fields }
    }

    /// `var<uniform>` of which each stretch of a grid has its own.
    pub(crate) const fn stretch(name: &'static str, fields: &'static [&'static str]) -> Self {
        Self { name, kind: BindingKind::Stretch, fields }
    }

    /// `var<storage, read>`.
    #[must_use]
    pub const fn read(name: &'static str) -> Self {
        Self { name, kind: BindingKind::Read, fields: &[] }
    }

    /// `var<storage, read_write>`.
    #[must_use]
    pub const fn write(name: &'static str) -> Self {
        Self { name, kind: BindingKind::Write, fields: &[] }
    }

    pub(crate) const fn layout_entry(self, binding: u32) -> wgpu::BindGroupLayoutEntry {
        // One buffer holds what each stretch of a grid needs; its place in it is given when encoding.
        let has_dynamic_offset = matches!(self.kind, BindingKind::Stretch);
        let ty = match self.kind {
            BindingKind::Uniform | BindingKind::Stretch => wgpu::BufferBindingType::Uniform,
            BindingKind::Read => wgpu::BufferBindingType::Storage { read_only: true },
            BindingKind::Write => wgpu::BufferBindingType::Storage { read_only: false },
        };
        wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
            count: None,
        }
    }
}
