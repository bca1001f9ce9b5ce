//! One file per kernel of `shaders/bench`: its bindings, its parameters, and what it must give.

pub(super) mod copy_words;
pub(super) mod multiply_add;
pub(super) mod multiply_matrices;

use core::fmt::Write as _;

pub use multiply_add::Scalar;

use crate::kernels::Binding;

/// A kernel that measures a ceiling. Its name is the stem of its WGSL file and host file, and its entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BenchKernel {
    /// A stream of reads and writes.
    CopyWords,
    /// Multiplications and additions of vectors.
    MultiplyAdd(Scalar),
    /// Products on matrix units, f16 into f32, of square tiles this wide.
    MultiplyMatrices {
        /// Rows and columns of a tile: 8 or 16.
        edge: u32,
        /// Invocations of a subgroup.
        subgroup_size: u32,
    },
}

/// Invocations of a workgroup of the kernels that do not need a certain number.
const WORKGROUP_SIZE: u32 = 256;

impl BenchKernel {
    /// The stem.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CopyWords => "copy_words",
            Self::MultiplyAdd(_) => "multiply_add",
            Self::MultiplyMatrices { .. } => "multiply_matrices",
        }
    }

    /// The label of its wgpu objects.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::CopyWords => "wattn.bench.copy_words",
            Self::MultiplyAdd(_) => "wattn.bench.multiply_add",
            Self::MultiplyMatrices { .. } => "wattn.bench.multiply_matrices",
        }
    }

    /// Bind group 0.
    #[must_use]
    pub const fn bindings(self) -> &'static [Binding] {
        match self {
            Self::CopyWords => &copy_words::BINDINGS,
            Self::MultiplyAdd(_) => &multiply_add::BINDINGS,
            Self::MultiplyMatrices { .. } => &multiply_matrices::BINDINGS,
        }
    }

    /// Names and byte offsets of the fields of the uniform, for comparison with the WGSL struct.
    #[must_use]
    pub fn params_fields(self) -> Vec<(&'static str, usize)> {
        match self {
            Self::CopyWords => copy_words::CopyParams::fields(),
            Self::MultiplyAdd(_) => multiply_add::RateParams::fields(),
            Self::MultiplyMatrices { .. } => multiply_matrices::MatrixParams::fields(),
        }
    }

    /// Invocations of a workgroup.
    #[must_use]
    pub const fn workgroup_size(self) -> u32 {
        match self {
            Self::MultiplyMatrices { subgroup_size, .. } => subgroup_size,
            _ => WORKGROUP_SIZE,
        }
    }

    const fn source(self) -> &'static str {
        match self {
            Self::CopyWords => include_str!("../../../shaders/bench/copy_words.wgsl"),
            Self::MultiplyAdd(_) => include_str!("../../../shaders/bench/multiply_add.wgsl"),
            Self::MultiplyMatrices { .. } => include_str!("../../../shaders/bench/multiply_matrices.wgsl"),
        }
    }

    /// The complete WGSL.
    #[must_use]
    pub fn wgsl(self) -> String {
        let mut source = String::new();
        if matches!(self, Self::MultiplyAdd(Scalar::F16) | Self::MultiplyMatrices { .. }) {
            source.push_str("enable f16;\n");
        }
        // Writing to a String cannot fail.
        if let Self::MultiplyAdd(scalar) = self {
            let _ = writeln!(source, "alias Scalar = {};", scalar.name());
        }
        if let Self::MultiplyMatrices { edge, .. } = self {
            source.push_str("enable wgpu_cooperative_matrix;\n");
            for (role, elem) in [("A", "f16"), ("B", "f16"), ("C", "f32")] {
                let _ = writeln!(source, "alias Matrix{role} = coop_mat{edge}x{edge}<{elem}, {role}>;");
            }
            let _ = writeln!(source, "const EDGE: u32 = {edge}u;");
        }
        let _ = writeln!(source, "const WORKGROUP_SIZE: u32 = {}u;", self.workgroup_size());
        source.push_str(self.source());
        source
    }
}
