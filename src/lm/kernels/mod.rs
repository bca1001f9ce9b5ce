//! One file per kernel of `shaders/lm`: its bindings, its parameters, its constants.

pub(super) mod embed_tokens;
pub(super) mod gate_mlp;
pub(super) mod project_token;
pub(super) mod project_tokens;
pub(super) mod rms_norm;
pub(super) mod rotate_heads;
pub(super) mod sample_token;

use core::fmt::Write as _;

use crate::kernels::Binding;
use crate::{DType, DeviceCaps};

/// A kernel of a model. Its name is the stem of its WGSL file, host file and CPU twin, and its entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LmKernel {
    /// Rows of the embedding.
    EmbedTokens,
    /// A norm of rows.
    RmsNorm,
    /// A product of one row with weights.
    ProjectToken,
    /// A product of many rows with weights.
    ProjectTokens,
    /// Heads, to attention and into the cache.
    RotateHeads,
    /// The gate of the MLP.
    GateMlp,
    /// The next token.
    SampleToken,
}

/// How weights are read: a file of the family `elem` of `shaders/shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WeightElem {
    /// f32.
    F32,
    /// f16 through the WGSL type.
    F16,
    /// f16 as pairs in u32, where the device has no such type.
    F16Packed,
    /// bf16 as pairs in u32.
    BF16,
}

impl WeightElem {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::F16Packed, Self::BF16];

    pub(super) const fn new(dtype: DType, caps: &DeviceCaps) -> Self {
        match dtype {
            DType::F16 if caps.shader_f16 => Self::F16,
            DType::F16 => Self::F16Packed,
            DType::BF16 => Self::BF16,
            _ => Self::F32,
        }
    }

    const fn source(self) -> &'static str {
        match self {
            Self::F32 => include_str!("../../../shaders/shared/elem_f32.wgsl"),
            Self::F16 => include_str!("../../../shaders/shared/elem_f16.wgsl"),
            Self::F16Packed => include_str!("../../../shaders/shared/elem_f16_packed.wgsl"),
            Self::BF16 => include_str!("../../../shaders/shared/elem_bf16.wgsl"),
        }
    }
}

/// One pipeline of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LmVariant {
    /// The kernel.
    pub kernel: LmKernel,
    /// How it reads weights, if it does.
    pub elem: WeightElem,
    /// Whether heads are normed.
    pub norm: bool,
}

impl LmKernel {
    /// Every kernel.
    pub const ALL: [Self; 7] = [
        Self::EmbedTokens,
        Self::RmsNorm,
        Self::ProjectToken,
        Self::ProjectTokens,
        Self::RotateHeads,
        Self::GateMlp,
        Self::SampleToken,
    ];

    /// The stem.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EmbedTokens => "embed_tokens",
            Self::RmsNorm => "rms_norm",
            Self::ProjectToken => "project_token",
            Self::ProjectTokens => "project_tokens",
            Self::RotateHeads => "rotate_heads",
            Self::GateMlp => "gate_mlp",
            Self::SampleToken => "sample_token",
        }
    }

    /// Bind group 0.
    #[must_use]
    pub const fn bindings(self) -> &'static [Binding] {
        match self {
            Self::EmbedTokens => &embed_tokens::BINDINGS,
            Self::RmsNorm => &rms_norm::BINDINGS,
            Self::ProjectToken | Self::ProjectTokens => &project_token::BINDINGS,
            Self::RotateHeads => &rotate_heads::BINDINGS,
            Self::GateMlp => &gate_mlp::BINDINGS,
            Self::SampleToken => &sample_token::BINDINGS,
        }
    }

    /// Names and byte offsets of the fields of the uniform, for comparison with the WGSL struct.
    #[must_use]
    pub fn params_fields(self) -> Vec<(&'static str, usize)> {
        match self {
            Self::EmbedTokens => embed_tokens::EmbedParams::fields(),
            Self::RmsNorm => rms_norm::NormParams::fields(),
            Self::ProjectToken | Self::ProjectTokens => project_token::ProjectParams::fields(),
            Self::RotateHeads => rotate_heads::HeadParams::fields(),
            Self::GateMlp => gate_mlp::GateParams::fields(),
            Self::SampleToken => sample_token::SampleParams::fields(),
        }
    }

    const fn source(self) -> &'static str {
        match self {
            Self::EmbedTokens => include_str!("../../../shaders/lm/embed_tokens.wgsl"),
            Self::RmsNorm => include_str!("../../../shaders/lm/rms_norm.wgsl"),
            Self::ProjectToken => include_str!("../../../shaders/lm/project_token.wgsl"),
            Self::ProjectTokens => include_str!("../../../shaders/lm/project_tokens.wgsl"),
            Self::RotateHeads => include_str!("../../../shaders/lm/rotate_heads.wgsl"),
            Self::GateMlp => include_str!("../../../shaders/lm/gate_mlp.wgsl"),
            Self::SampleToken => include_str!("../../../shaders/lm/sample_token.wgsl"),
        }
    }

    /// What the kernel shares with another.
    const fn shared(self) -> &'static str {
        match self {
            Self::RmsNorm | Self::RotateHeads => include_str!("../../../shaders/lm/shared/sum_lanes.wgsl"),
            Self::ProjectToken | Self::ProjectTokens => {
                include_str!("../../../shaders/lm/shared/project_params.wgsl")
            }
            _ => "",
        }
    }

    fn constants(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::EmbedTokens => &embed_tokens::CONSTANTS,
            Self::RmsNorm => &rms_norm::CONSTANTS,
            Self::ProjectToken => &project_token::CONSTANTS,
            Self::ProjectTokens => &[],
            Self::RotateHeads => &rotate_heads::CONSTANTS,
            Self::GateMlp => &gate_mlp::CONSTANTS,
            Self::SampleToken => &sample_token::CONSTANTS,
        }
    }

    const fn reads_weights(self) -> bool {
        matches!(self, Self::EmbedTokens | Self::ProjectToken | Self::ProjectTokens)
    }

    /// Every variant.
    #[must_use]
    pub fn variants(self) -> Vec<LmVariant> {
        let elems: &[WeightElem] = if self.reads_weights() { &WeightElem::ALL } else { &[WeightElem::F32] };
        let norms: &[bool] = if self == Self::RotateHeads { &[false, true] } else { &[false] };
        let of = |&elem: &WeightElem| norms.iter().map(move |&norm| LmVariant { kernel: self, elem, norm });
        elems.iter().flat_map(of).collect()
    }
}

impl LmVariant {
    /// The kernel without a norm, its weights, if it reads any, in f32.
    #[must_use]
    pub const fn plain(kernel: LmKernel) -> Self {
        Self { kernel, elem: WeightElem::F32, norm: false }
    }

    /// The complete WGSL.
    #[must_use]
    pub fn wgsl(&self) -> String {
        let mut source = String::new();
        if self.kernel.reads_weights() && self.elem == WeightElem::F16 {
            source.push_str("enable f16;\n");
        }
        for (name, value) in self.kernel.constants() {
            // Writing to a String cannot fail.
            let _ = writeln!(source, "const {name}: u32 = {value}u;");
        }
        if self.kernel == LmKernel::RotateHeads {
            let _ = writeln!(source, "const NORM: bool = {};", self.norm);
        }
        if self.kernel.reads_weights() {
            source.push_str(self.elem.source());
        }
        source.push_str(&crate::edited(self.kernel.shared()));
        source.push_str(&crate::edited(self.kernel.source()));
        source
    }
}
