//! One file per kernel of `shaders/lm`: its bindings, its parameters, its constants.

pub(super) mod embed_tokens;
pub(super) mod gate_mlp;
pub(super) mod project_token;
pub(super) mod project_tokens;
pub(super) mod rms_norm;
pub(super) mod rotate_heads;
pub(super) mod sample_token;

pub use embed_tokens::EMBED_TOKENS;
pub use gate_mlp::GATE_MLP;
pub use project_token::PROJECT_TOKEN;
pub use project_tokens::PROJECT_TOKENS;
pub use rms_norm::RMS_NORM;
pub use rotate_heads::ROTATE_HEADS;
pub use sample_token::SAMPLE_TOKEN;

use crate::kernels::modules;
use crate::{DType, DeviceCaps, Kernel, Module, Specialization};

/// Every kernel.
pub static ALL: &[&Kernel] =
    &[&EMBED_TOKENS, &RMS_NORM, &PROJECT_TOKEN, &PROJECT_TOKENS, &ROTATE_HEADS, &GATE_MLP, &SAMPLE_TOKEN];

/// Modules that kernels of `shaders/lm` share.
macro_rules! shared {
    ($name:literal) => {
        Module::own("shared", $name, include_str!(concat!("../../../shaders/lm/shared/", $name, ".wgsl")))
    };
}
static SUM_LANES: Module = shared!("sum_lanes");
static PROJECT_PARAMS: Module = shared!("project_params");

/// The type of weights as they are read: the member of the family `elem`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WeightElem {
    /// f32.
    F32,
    /// f16 through the WGSL type.
    F16,
    /// f16 as pairs in u32, where the device lacks the WGSL type.
    F16Packed,
    /// bf16 as pairs in u32.
    BF16,
}

impl WeightElem {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::F16Packed, Self::BF16];

    pub(super) const fn new(dtype: DType, caps: &DeviceCaps) -> Self {
        match dtype {
            DType::F16 if caps.shader_f16 => Self::F16,
            DType::F16 => Self::F16Packed,
            DType::BF16 => Self::BF16,
            DType::F32 => Self::F32,
        }
    }

    fn module(self) -> &'static Module {
        match self {
            Self::F32 => &modules::ELEM_F32,
            Self::F16 => &modules::ELEM_F16,
            Self::F16Packed => &modules::ELEM_F16_PACKED,
            Self::BF16 => &modules::ELEM_BF16,
        }
    }
}

/// One pipeline of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LmVariant {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// The type of its weights, if it reads any.
    pub elem: WeightElem,
    /// Whether heads are normed.
    pub norm: bool,
}

/// A kernel's parts beside its own text: whether it reads weights, its shared module, its constants.
fn parts(kernel: &Kernel) -> (bool, Option<&'static Module>, &'static [(&'static str, u32)]) {
    match kernel.name() {
        "embed_tokens" => (true, None, &embed_tokens::CONSTANTS),
        "rms_norm" => (false, Some(&SUM_LANES), &rms_norm::CONSTANTS),
        "project_token" => (true, Some(&PROJECT_PARAMS), &project_token::CONSTANTS),
        "project_tokens" => (true, Some(&PROJECT_PARAMS), &project_tokens::CONSTANTS),
        "rotate_heads" => (false, Some(&SUM_LANES), &rotate_heads::CONSTANTS),
        "gate_mlp" => (false, None, &gate_mlp::CONSTANTS),
        "sample_token" => (false, None, &sample_token::CONSTANTS),
        other => panic!("{other} is no kernel of a model"),
    }
}

impl LmVariant {
    /// The kernel without a norm; its weights, if it reads any, are f32.
    #[must_use]
    pub const fn plain(kernel: &'static Kernel) -> Self {
        Self { kernel, elem: WeightElem::F32, norm: false }
    }

    /// Every variant of every kernel.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let of_kernel = |&kernel: &&'static Kernel| {
            let elems: &[WeightElem] = if parts(kernel).0 { &WeightElem::ALL } else { &[WeightElem::F32] };
            let norms: &[bool] = if kernel == &ROTATE_HEADS { &[false, true] } else { &[false] };
            elems.iter().flat_map(move |&elem| norms.iter().map(move |&norm| Self { kernel, elem, norm }))
        };
        ALL.iter().flat_map(of_kernel).collect()
    }

    /// Its text and bindings.
    ///
    /// # Panics
    /// When the kernel is not in [`ALL`].
    #[must_use]
    pub fn specialization(&self) -> Specialization {
        let (reads_weights, shared, constants) = parts(self.kernel);
        let mut variant = Specialization::new(self.kernel);
        for module in reads_weights.then(|| self.elem.module()).into_iter().chain(shared) {
            variant = variant.with_module(module);
        }
        for &(name, value) in constants {
            variant = variant.with_constant(name, value);
        }
        if self.kernel == &ROTATE_HEADS {
            variant = variant.with_switch("NORM", self.norm);
        }
        variant
    }

    /// The complete WGSL.
    #[must_use]
    pub fn wgsl(&self) -> String {
        self.specialization().wgsl()
    }
}
