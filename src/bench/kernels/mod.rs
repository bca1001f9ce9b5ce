//! One file per kernel of `shaders/bench`: its bindings, its parameters, its expected result.

pub(super) mod copy_words;
pub(super) mod multiply_add;
pub(super) mod multiply_matrices;

pub use multiply_add::Scalar;

use crate::kernels::modules;
use crate::{Kernel, Module, Need, Specialization};

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

static SCALAR_F32: Module =
    Module::own("scalar", "scalar_f32", include_str!("../../../shaders/bench/shared/scalar_f32.wgsl"));
static SCALAR_F16: Module =
    Module::own("scalar", "scalar_f16", include_str!("../../../shaders/bench/shared/scalar_f16.wgsl"))
        .needing(&[Need::F16]);

/// Workgroup size of kernels that do not require a certain number.
const WORKGROUP_SIZE: u32 = 256;

impl BenchKernel {
    /// The kernel.
    #[must_use]
    pub fn kernel(self) -> &'static Kernel {
        match self {
            Self::CopyWords => &copy_words::COPY_WORDS,
            Self::MultiplyAdd(_) => &multiply_add::MULTIPLY_ADD,
            Self::MultiplyMatrices { .. } => &multiply_matrices::MULTIPLY_MATRICES,
        }
    }

    /// The stem.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.kernel().name()
    }

    /// Invocations of a workgroup.
    #[must_use]
    pub const fn workgroup_size(self) -> u32 {
        match self {
            Self::MultiplyMatrices { subgroup_size, .. } => subgroup_size,
            _ => WORKGROUP_SIZE,
        }
    }

    /// Its text and bindings.
    #[must_use]
    pub fn specialization(self) -> Specialization {
        let variant = Specialization::new(self.kernel()).with_constant("WORKGROUP_SIZE", self.workgroup_size());
        match self {
            Self::CopyWords => variant,
            Self::MultiplyAdd(Scalar::F32) => variant.with_module(&SCALAR_F32),
            Self::MultiplyAdd(Scalar::F16) => variant.with_module(&SCALAR_F16),
            Self::MultiplyMatrices { edge, .. } => {
                let matrix = if edge == 8 { &modules::MATRIX_8 } else { &modules::MATRIX_16 };
                variant.with_module(matrix).with_constant("EDGE", edge)
            }
        }
    }

    /// The complete WGSL.
    #[must_use]
    pub fn wgsl(self) -> String {
        self.specialization().wgsl()
    }
}
