//! The host's description of a binding.

/// One entry of bind group 0: the name and kind of a WGSL variable. Its number is its index among the bindings of the kernel and its
/// modules. The text gets the number as a constant: `x` is declared `@group(0) @binding(X_BINDING)`.
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
    /// Its address space and access.
    pub kind: BindingKind,
    /// The fields of a uniform's struct in order, each a scalar of four bytes.
    pub fields: &'static [&'static str],
}

/// The address space and access of a [`Binding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BindingKind {
    /// `var<uniform>`: the numbers of a call.
    Uniform,
    /// `var<uniform>`: the numbers that differ from stretch to stretch of a grid.
    Stretch,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

impl BindingKind {
    /// Whether it counts towards the device's limit of storage buffers.
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

    /// `var<uniform>`, one for each stretch of a grid.
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
        // One buffer holds the uniforms of all stretches; encoding gives the offset.
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
