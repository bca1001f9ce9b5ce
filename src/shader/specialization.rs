//! What distinguishes the pipelines of a kernel, and the text that each is compiled from.

use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};

use super::chain::chain_of;
use super::edits::edited;
use super::names::{Names, declared, renamed};
use super::taken::Taken;
use super::unroll::unroll;
use super::{Arrays, Binding, Kernel, Module, Need, Trust};
use crate::kernels::modules;
use crate::{Error, Result};

/// One variant of a kernel: the modules chosen from their families and the constants. The key of the pipeline cache.
///
/// ```
/// use wattn::{Binding, Kernel, Specialization, kernels};
/// static SCALE: Kernel = Kernel::new(
///     "scale",
///     "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
///      @compute @workgroup_size(WORKGROUP_SIZE)
///      fn scale(@builtin(global_invocation_id) at: vec3<u32>) {
///          if at.x < arrayLength(&x) { x[at.x] *= f32(FACTOR); }
///      }",
/// )
/// .binding(&[Binding::write("x")]);
/// let doubled = Specialization::new(&SCALE).with_constant("WORKGROUP_SIZE", 64).with_constant("FACTOR", 2);
/// assert!(doubled.wgsl().starts_with("const FACTOR: u32 = 2u;"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Specialization {
    pub(crate) kernel: &'static Kernel,
    pub(crate) modules: Vec<Taken>,
    pub(crate) constants: BTreeMap<&'static str, u32>,
    pub(crate) switches: BTreeMap<&'static str, bool>,
    pub(crate) arrays: Arrays,
    /// The names under which modifiers of scores are taken, in the order in which they apply.
    pub(crate) chain: Vec<&'static str>,
}

impl Specialization {
    /// The kernel without modules and constants.
    #[must_use]
    pub const fn new(kernel: &'static Kernel) -> Self {
        Self {
            kernel,
            modules: Vec::new(),
            constants: BTreeMap::new(),
            switches: BTreeMap::new(),
            arrays: Arrays::Memory,
            chain: Vec::new(),
        }
    }

    /// The variant with one more module. Modules precede the kernel's text, in the order in which they are added.
    #[must_use]
    pub fn with_module(mut self, module: &'static Module) -> Self {
        self.push(module);
        self
    }

    /// The variant with one more module, taken for a tensor: every name that its text declares, and every binding, gets the tensor's name.
    /// So a module can be taken several times, or several modules of its family. `widen` is `widen_k` for the tensor `k`, a type `Elem4`
    /// is `KElem4`, a constant `TABLE` is `TABLE_K`, a binding `scales` is `scales_k`. Modules that are taken for the same tensor use
    /// each other's names as they are written. Constants of the host keep their names; fields of structs do as well, and must not have the
    /// name of something that the text declares.
    ///
    /// ```
    /// use wattn::{Kernel, Specialization, kernels::modules};
    /// static SUM: Kernel = Kernel::new("sum", "/* … widen_a(a[i]) + widen_b(b[i]), where a is an array<AElem4> … */");
    /// let mixed = Specialization::new(&SUM)
    ///     .with_module_for("a", &modules::ELEM_F32)
    ///     .with_module_for("b", &modules::ELEM_BF16);
    /// let wgsl = mixed.wgsl();
    /// assert!(wgsl.contains("alias AElem4 = vec4<f32>;") && wgsl.contains("fn widen_b(elem: BElem4) -> vec4<f32>"));
    /// ```
    #[must_use]
    pub fn with_module_for(mut self, tensor: &'static str, module: &'static Module) -> Self {
        self.push(Taken::for_tensor(tensor, module));
        self
    }

    /// The variant with this module in the place of those of its family that are taken for a tensor. For tests of formats that plans do not
    /// mix yet.
    #[doc(hidden)]
    #[must_use]
    pub fn replacing_for(mut self, tensor: &str, module: &'static Module) -> Self {
        let of_family = |taken: &&mut Taken| taken.tensor == Some(tensor) && taken.module.family() == module.family();
        self.modules.iter_mut().filter(of_family).for_each(|taken| taken.module = module);
        self
    }

    pub(crate) fn push(&mut self, module: impl Into<Taken>) {
        self.modules.push(module.into());
    }

    pub(crate) fn extend(&mut self, modules: impl IntoIterator<Item = &'static Module>) {
        self.modules.extend(modules.into_iter().map(Taken::from));
    }

    /// The variant with a constant of type u32.
    #[must_use]
    pub fn with_constant(mut self, name: &'static str, value: u32) -> Self {
        self.constants.insert(name, value);
        self
    }

    /// The variant with a constant of type bool.
    #[must_use]
    pub fn with_switch(mut self, name: &'static str, value: bool) -> Self {
        self.switches.insert(name, value);
        self
    }

    /// The kernel.
    #[must_use]
    pub const fn kernel(&self) -> &'static Kernel {
        self.kernel
    }

    /// The modules, in order.
    pub fn modules(&self) -> impl Iterator<Item = &'static Module> {
        self.modules.iter().map(|taken| taken.module)
    }

    /// The modules that are taken for a tensor, in order.
    pub fn modules_for(&self, tensor: &str) -> impl Iterator<Item = &'static Module> {
        self.modules.iter().filter(move |taken| taken.tensor == Some(tensor)).map(|taken| taken.module)
    }

    /// Bind group 0: the kernel's bindings, then those of its modules.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        let of_modules = self.modules.iter().flat_map(Taken::bindings);
        self.kernel.bindings().iter().copied().chain(of_modules).collect()
    }

    pub(crate) fn num_storage_buffers(&self) -> u32 {
        let storage = |binding: &Binding| binding.kind.is_storage();
        // There are only a few.
        self.bindings().into_iter().filter(storage).count() as u32
    }

    /// Whether one of its texts needs the feature.
    pub(crate) fn needs(&self, need: Need) -> bool {
        self.kernel.needs().contains(&need) || self.modules().any(|module| module.needs().contains(&need))
    }

    /// [`Trust::Own`] where all texts are the crate's.
    pub(crate) fn trust(&self) -> Trust {
        let mut all = self.modules().map(Module::trust).chain([self.kernel.trust()]);
        if all.all(|trust| trust == Trust::Own) { Trust::Own } else { Trust::Guarded }
    }

    /// Binds the workspace, if it is not bound yet.
    pub(crate) fn add_workspace(&mut self) {
        if !self.modules().any(|module| module == &modules::WORKSPACE) {
            self.push(&modules::WORKSPACE);
        }
    }

    /// The variant whose walks are cut into parts.
    pub(crate) fn cut_walks(&mut self, carried: u32) {
        self.constants.insert("CARRIED", carried);
        if let Some(columns) = self.constants.get("V_TILES").copied() {
            self.constants.insert("CARRIED_COLUMNS", columns);
        }
        for taken in &mut self.modules {
            if taken.module == &modules::RESUME_NONE {
                taken.module = &modules::RESUME_STATE;
            }
        }
        self.add_workspace();
    }

    /// The value of a constant, by its WGSL name.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<u32> {
        self.constants.get(name).copied()
    }

    /// The complete WGSL of this variant.
    #[must_use]
    pub fn wgsl(&self) -> String {
        self.assemble(|text| unroll(text, &self.constants, self.arrays))
    }

    /// [`wgsl`](Self::wgsl) without unrolling. For tests: marked loops are valid WGSL as they stand.
    #[doc(hidden)]
    #[must_use]
    pub fn wgsl_rolled(&self) -> String {
        self.assemble(str::to_owned)
    }

    /// What the names of all modules of a tensor become in their texts.
    fn names_for(&self, tensor: &str) -> Names {
        self.modules.iter().filter(|taken| taken.tensor == Some(tensor)).flat_map(Taken::names).collect()
    }

    /// A text under the names of a tensor's modules. For tests that look for a module's text in that of a variant.
    #[doc(hidden)]
    #[must_use]
    pub fn renamed_for(&self, tensor: &str, wgsl: &str) -> String {
        renamed(wgsl, &self.names_for(tensor))
    }

    /// Fails where two texts declare the same name: a module that is taken twice, or two of one family.
    pub(crate) fn check_names(&self) -> Result<()> {
        let modules = self.modules.iter().map(|taken| (taken.to_string(), taken.module.wgsl(), taken.names()));
        let kernel = (format!("kernel {}", self.kernel.name()), self.kernel.wgsl(), Names::new());
        let mut by_name: BTreeMap<String, String> = BTreeMap::new();
        for (text, wgsl, names) in modules.chain([kernel]) {
            for name in declared(wgsl) {
                let name = names.get(name).map_or(name, String::as_str).to_owned();
                if let Some(first) = by_name.insert(name.clone(), text.clone()) {
                    return Err(Error::Name { kernel: self.kernel.name(), name, first, second: text });
                }
            }
        }
        Ok(())
    }

    /// The text, with each of the crate's own parts passed through `prepare`.
    fn assemble(&self, prepare: impl Fn(&str) -> String) -> String {
        let mut source = String::new();
        if self.needs(Need::F16) {
            source.push_str("enable f16;\n");
        }
        if self.needs(Need::Matrices) {
            source.push_str("enable wgpu_cooperative_matrix;\n");
            // naga counts every local variable as non-uniform and would reject matrix operations under conditions on them. The crate's
            // conditions are uniform in the workgroup, as the barriers beside them need.
            source.push_str("diagnostic(off, derivative_uniformity);\n");
        }
        // Writing to a String cannot fail.
        for (name, value) in &self.constants {
            let _ = writeln!(source, "const {name}: u32 = {value}u;");
        }
        let of_modules = self.modules().flat_map(Module::constants);
        let brought: BTreeSet<String> = of_modules.chain(self.kernel.constants()).map(ToString::to_string).collect();
        for constant in brought {
            let _ = writeln!(source, "{constant}");
        }
        for (name, value) in &self.switches {
            let _ = writeln!(source, "const {name}: bool = {value};");
        }
        for (at, binding) in self.bindings().iter().enumerate() {
            let _ = writeln!(source, "const {}_BINDING: u32 = {at}u;", binding.name.to_uppercase());
        }
        let mut add = |text: &str, trust| {
            source.push('\n');
            match trust {
                Trust::Own => source.push_str(&prepare(text)),
                // Marks in a caller's text mean nothing here, and its last line may lack a newline.
                Trust::Guarded => {
                    source.push_str(text);
                    source.push('\n');
                }
            }
        };
        for taken in &self.modules {
            let text = edited(taken.module.wgsl());
            match taken.tensor {
                Some(tensor) => add(&renamed(&text, &self.names_for(tensor)), taken.module.trust()),
                None => add(&text, taken.module.trust()),
            }
        }
        if !self.chain.is_empty() {
            add(&chain_of(&self.chain), Trust::Own);
        }
        add(&edited(self.kernel.wgsl()), self.kernel.trust());
        source
    }
}

impl core::fmt::Display for Specialization {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let modules = self.modules.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
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
