//! Descriptors of kernels and modules: their WGSL, their bindings, the device features they need. The crate's own and a caller's are
//! both `static`s of these types.

use core::hash::{Hash, Hasher};

use super::Binding;

/// The origin of a text. The crate's own text is compiled without wgpu's bounds checks, and its marked loops are unrolled; other text is
/// compiled with the checks, unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Trust {
    /// The crate's own: tests compare it with its descriptor, and plans make sure that no index leaves a buffer.
    Own,
    /// A caller's: compared with its descriptor when it is compiled, and bounds-checked when it runs.
    Guarded,
}

/// A device feature that a text needs beyond plain WGSL.
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

/// A constant of a text whose value the host provides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Constant {
    name: &'static str,
    value: Value,
}

/// The value's bits, so that constants can be compared.
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

/// A part of a text: one member of a family, chosen when a kernel is [specialised](crate::Specialization). The modules of a family
/// offer the same names, so that one can replace another.
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
    /// A module of a caller's.
    #[must_use]
    pub const fn new(family: &'static str, name: &'static str, wgsl: &'static str) -> Self {
        Self { family, name, wgsl, bindings: &[], needs: &[], constants: &[], trust: Trust::Guarded }
    }

    pub(crate) const fn own(family: &'static str, name: &'static str, wgsl: &'static str) -> Self {
        Self { trust: Trust::Own, ..Self::new(family, name, wgsl) }
    }

    /// The module with bindings. Their numbers follow those of the kernel and of earlier modules.
    #[must_use]
    pub const fn binding(self, bindings: &'static [Binding]) -> Self {
        Self { bindings, ..self }
    }

    /// The module with constants from the host. Another text may have the same.
    #[must_use]
    pub const fn declaring(self, constants: &'static [Constant]) -> Self {
        Self { constants, ..self }
    }

    /// The module with needs.
    #[must_use]
    pub const fn needing(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// The family.
    #[must_use]
    pub const fn family(&self) -> &'static str {
        self.family
    }

    /// Its name, unique among the modules of a text: `family_member` for modules of families in the crate.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The text.
    #[must_use]
    pub const fn wgsl(&self) -> &'static str {
        self.wgsl
    }

    /// Its bindings.
    #[must_use]
    pub const fn bindings(&self) -> &'static [Binding] {
        self.bindings
    }

    /// Its constants from the host.
    #[must_use]
    pub const fn constants(&self) -> &'static [Constant] {
        self.constants
    }

    /// The device features it needs.
    #[must_use]
    pub const fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// Its origin.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        self.trust
    }
}

/// A kernel: an entry point and its bindings. Its name is that of the entry point; in the crate also the stem of its WGSL file, host
/// file and CPU twin.
///
/// [`Specialization`](crate::Specialization) makes the complete text, [`Pipeline`](crate::Pipeline) compiles it, and
/// [`Step`](crate::Step) runs it.
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
    /// A kernel of a caller's: the name of the entry point, and the text.
    #[must_use]
    pub const fn new(name: &'static str, wgsl: &'static str) -> Self {
        Self { name, label: name, wgsl, bindings: &[], needs: &[], constants: &[], trust: Trust::Guarded }
    }

    pub(crate) const fn own(name: &'static str, label: &'static str, wgsl: &'static str) -> Self {
        Self { label, trust: Trust::Own, ..Self::new(name, wgsl) }
    }

    /// The kernel with bindings, which are those of bind group 0 from number 0 on.
    #[must_use]
    pub const fn binding(self, bindings: &'static [Binding]) -> Self {
        Self { bindings, ..self }
    }

    /// The kernel with constants from the host. Another text may have the same.
    #[must_use]
    pub const fn declaring(self, constants: &'static [Constant]) -> Self {
        Self { constants, ..self }
    }

    /// The kernel with needs.
    #[must_use]
    pub const fn needing(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// The kernel with a label for its wgpu objects; the default is its name.
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

    /// Bind group 0, without the bindings that modules of a variant add.
    #[must_use]
    pub const fn bindings(&self) -> &'static [Binding] {
        self.bindings
    }

    /// Its constants from the host.
    #[must_use]
    pub const fn constants(&self) -> &'static [Constant] {
        self.constants
    }

    /// The device features it needs.
    #[must_use]
    pub const fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// Its origin.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        self.trust
    }
}

/// Descriptors are equal when their contents are equal; identical statics are recognised without reading their text. The hash covers
/// names only, which differ for nearly all of them.
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
