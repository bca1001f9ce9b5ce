//! What distinguishes one pipeline of a kernel from another.

use std::collections::BTreeMap;

use super::{Arrays, Module};
use crate::kernels::{Binding, BindingKind, KernelId};

/// One variant of a kernel: the modules chosen from their families and the constants. The key of the pipeline cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Specialization {
    pub(crate) kernel: KernelId,
    pub(crate) modules: Vec<Module>,
    pub(crate) constants: BTreeMap<&'static str, u32>,
    pub(crate) switches: BTreeMap<&'static str, bool>,
    pub(crate) arrays: Arrays,
}

impl Specialization {
    /// The kernel.
    #[must_use]
    pub const fn kernel(&self) -> KernelId {
        self.kernel
    }

    /// The files of `shaders/shared` that it is made of.
    pub fn modules(&self) -> impl Iterator<Item = &'static str> {
        self.modules.iter().map(|module| module.name())
    }

    /// Bind group 0: the kernel's bindings, then those of its modules.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        let of_modules = self.modules.iter().flat_map(|module| module.bindings());
        self.kernel.bindings().iter().chain(of_modules).copied().collect()
    }

    pub(crate) fn num_storage_buffers(&self) -> u32 {
        let storage = |binding: &Binding| binding.kind != BindingKind::Uniform;
        // A handful.
        self.bindings().into_iter().filter(storage).count() as u32
    }

    /// The same kernel with its walks cut into parts.
    pub(crate) fn carry_state(&mut self, carried: u32) {
        self.constants.insert("CARRIED", carried);
        if let Some(columns) = self.constants.get("V_TILES").copied() {
            self.constants.insert("CARRIED_COLUMNS", columns);
        }
        // After the uniform and all other buffers.
        self.constants.insert("CARRIED_BINDING", 1 + self.num_storage_buffers());
        for module in &mut self.modules {
            if *module == Module::CarryNone {
                *module = Module::CarryState;
            }
        }
    }

    /// The value of a constant, by its WGSL name.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<u32> {
        self.constants.get(name).copied()
    }
}

impl core::fmt::Display for Specialization {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let modules = self.modules().collect::<Vec<_>>().join("+");
        write!(f, "{modules}")?;
        for (name, value) in &self.constants {
            write!(f, " {name}={value}")?;
        }
        for (name, _) in self.switches.iter().filter(|&(_, &on)| on) {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}
