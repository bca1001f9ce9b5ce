//! The host's side of a kernel's binding list.

/// One entry of a kernel's bind group 0, in the order of the bindings in its WGSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The name of the WGSL variable.
    pub name: &'static str,
    /// What it is bound as.
    pub kind: BindingKind,
}

/// The address space and access of a [`Binding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// `var<uniform>`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

impl Binding {
    pub(crate) const fn uniform(name: &'static str) -> Self {
        Self { name, kind: BindingKind::Uniform }
    }

    pub(crate) const fn read(name: &'static str) -> Self {
        Self { name, kind: BindingKind::Read }
    }

    pub(crate) const fn write(name: &'static str) -> Self {
        Self { name, kind: BindingKind::Write }
    }

    pub(crate) const fn layout_entry(self, binding: u32) -> wgpu::BindGroupLayoutEntry {
        // One uniform buffer holds what each stretch of a grid needs; its place in it is given when encoding.
        let has_dynamic_offset = matches!(self.kind, BindingKind::Uniform);
        let ty = match self.kind {
            BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
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
