//! What a kernel and a module are: their WGSL, what they bind, what they ask of a device. The crate's own and a caller's
//! alike are `static`s of these types.

use core::hash::{Hash, Hasher};

use super::Binding;

/// Whose text it is. The crate's own is compiled without wgpu's bounds checks, and its marked loops are unrolled; all other text
/// is compiled with the checks, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Trust {
    /// The crate's own: tests hold it to its descriptor, and plans see to it that no index leaves a buffer.
    Own,
    /// Everybody else's: compared with its descriptor when it is compiled, and guarded when it runs.
    Guarded,
}

/// What a text asks of a device beyond plain WGSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Need {
    /// The type f16: `SHADER_F16`.
    F16,
    /// The types i64 and u64: `SHADER_INT64`.
    Int64,
    /// Subgroup operations: `SUBGROUP`.
    Subgroups,
    /// Cooperative matrices: `EXPERIMENTAL_COOPERATIVE_MATRIX`.
    Matrices,
}

impl Need {
    pub(crate) const ALL: [Self; 4] = [Self::F16, Self::Int64, Self::Subgroups, Self::Matrices];

    /// The feature, and its name in wgpu.
    pub(crate) const fn feature(self) -> (wgpu::Features, &'static str) {
        match self {
            Self::F16 => (wgpu::Features::SHADER_F16, "SHADER_F16"),
            Self::Int64 => (wgpu::Features::SHADER_INT64, "SHADER_INT64"),
            Self::Subgroups => (wgpu::Features::SUBGROUP, "SUBGROUP"),
            Self::Matrices => (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "EXPERIMENTAL_COOPERATIVE_MATRIX"),
        }
    }
}

/// A constant that a text takes from the host, which knows it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Constant {
    name: &'static str,
    value: Value,
}

/// By its bits, so that constants compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Value {
    U32(u32),
    F32(u32),
}

impl Constant {
    /// `const NAME: u32`.
    #[must_use]
    pub const fn u32(name: &'static str, value: u32) -> Self {
        Self { name, value: Value::U32(value) }
    }

    /// `const NAME: f32`. The value is finite, as constants of WGSL are.
    #[must_use]
    pub const fn f32(name: &'static str, value: f32) -> Self {
        assert!(value.is_finite(), "WGSL has no such constant");
        Self { name, value: Value::F32(value.to_bits()) }
    }
}

impl core::fmt::Display for Constant {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.value {
            Value::U32(value) => write!(f, "const {}: u32 = {value}u;", self.name),
            Value::F32(bits) => write!(f, "const {}: f32 = {:e}f;", self.name, f32::from_bits(bits)),
        }
    }
}

/// A part of a text: one member of a family, chosen when a kernel is [specialised](crate::Specialization). A family is a set of
/// modules that offer the same names, so that one can stand for another.
///
/// ```
/// use wattn::{Binding, Module};
/// static SQUARED: Module = Module::new("activation", "squared", "fn activate(x: f32) -> f32 { return x * x; }");
/// static FROM_TABLE: Module = Module::new(
///     "activation",
///     "from_table",
///     "@group(0) @binding(TABLE_BINDING) var<storage, read> table: array<f32>;
///      fn activate(x: f32) -> f32 { return table[u32(x) % arrayLength(&table)]; }",
/// )
/// .binding(&[Binding::read("table")]);
/// assert_eq!(SQUARED.family(), FROM_TABLE.family());
/// ```
#[derive(Debug)]
pub struct Module {
    family: &'static str,
    name: &'static str,
    wgsl: &'static str,
    bindings: &'static [Binding],
    needs: &'static [Need],
    constants: &'static [Constant],
    trust: Trust,
}

impl Module {
    /// A caller's own.
    #[must_use]
    pub const fn new(family: &'static str, name: &'static str, wgsl: &'static str) -> Self {
        Self { family, name, wgsl, bindings: &[], needs: &[], constants: &[], trust: Trust::Guarded }
    }

    pub(crate) const fn own(family: &'static str, name: &'static str, wgsl: &'static str) -> Self {
        Self { trust: Trust::Own, ..Self::new(family, name, wgsl) }
    }

    /// The same with bindings, which come after those of the kernel and of modules before it.
    #[must_use]
    pub const fn binding(self, bindings: &'static [Binding]) -> Self {
        Self { bindings, ..self }
    }

    /// The same with constants of the host's. Another text may bring the same.
    #[must_use]
    pub const fn declaring(self, constants: &'static [Constant]) -> Self {
        Self { constants, ..self }
    }

    /// The same with needs.
    #[must_use]
    pub const fn needing(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// The family.
    #[must_use]
    pub const fn family(&self) -> &'static str {
        self.family
    }

    /// Its name among all modules.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The text.
    #[must_use]
    pub const fn wgsl(&self) -> &'static str {
        self.wgsl
    }

    /// What it binds.
    #[must_use]
    pub const fn bindings(&self) -> &'static [Binding] {
        self.bindings
    }

    /// What it takes from the host.
    #[must_use]
    pub const fn constants(&self) -> &'static [Constant] {
        self.constants
    }

    /// What it asks of a device.
    #[must_use]
    pub const fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// Whose it is.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        self.trust
    }
}

/// A kernel: an entry point and what is bound to it. Its name is the entry point; of the crate's own also the stem of its WGSL file, host
/// file and CPU twin.
///
/// [`Specialization`](crate::Specialization) makes a complete text of it, [`Pipeline`](crate::Pipeline) compiles that, and says how the
/// result runs.
#[derive(Debug)]
pub struct Kernel {
    name: &'static str,
    label: &'static str,
    wgsl: &'static str,
    bindings: &'static [Binding],
    needs: &'static [Need],
    constants: &'static [Constant],
    trust: Trust,
}

impl Kernel {
    /// A caller's own: the name of the entry point, and the text.
    #[must_use]
    pub const fn new(name: &'static str, wgsl: &'static str) -> Self {
        Self { name, label: name, wgsl, bindings: &[], needs: &[], constants: &[], trust: Trust::Guarded }
    }

    pub(crate) const fn own(name: &'static str, label: &'static str, wgsl: &'static str) -> Self {
        Self { label, trust: Trust::Own, ..Self::new(name, wgsl) }
    }

    /// The same with bindings: those of bind group 0, from 0 on.
    #[must_use]
    pub const fn binding(self, bindings: &'static [Binding]) -> Self {
        Self { bindings, ..self }
    }

    /// The same with constants of the host's. Another text may bring the same.
    #[must_use]
    pub const fn declaring(self, constants: &'static [Constant]) -> Self {
        Self { constants, ..self }
    }

    /// The same with needs.
    #[must_use]
    pub const fn needing(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// The same with another label for its wgpu objects than its name.
    #[must_use]
    pub const fn labelled(self, label: &'static str) -> Self {
        Self { label, ..self }
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The label of its wgpu objects.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.label
    }

    /// The text, without modules and constants.
    #[must_use]
    pub const fn wgsl(&self) -> &'static str {
        self.wgsl
    }

    /// Bind group 0, without what the modules of a variant add.
    #[must_use]
    pub const fn bindings(&self) -> &'static [Binding] {
        self.bindings
    }

    /// What it takes from the host.
    #[must_use]
    pub const fn constants(&self) -> &'static [Constant] {
        self.constants
    }

    /// What it asks of a device.
    #[must_use]
    pub const fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// Whose it is.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        self.trust
    }
}

/// Descriptors are equal where they say the same; that two are one and the same is seen without reading their text. Their hash takes
/// no more than names, which tell nearly all of them apart.
macro_rules! compare_by_contents {
    ($descriptor:ty, [$($field:ident),*]) => {
        impl PartialEq for $descriptor {
            fn eq(&self, other: &Self) -> bool {
                core::ptr::eq(self, other) || ($(self.$field == other.$field)&&*)
            }
        }

        impl Eq for $descriptor {}

        impl Hash for $descriptor {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.name.hash(state);
            }
        }
    };
}

compare_by_contents!(Module, [family, name, trust, bindings, needs, constants, wgsl]);
compare_by_contents!(Kernel, [name, label, trust, bindings, needs, constants, wgsl]);
