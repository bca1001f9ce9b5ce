//! Which member of a family an element type or a tier takes.

use crate::kernels::modules;
use crate::shader::Module;
use crate::{DType, DeviceCaps, Tier};

pub(super) const fn elem_module(dtype: DType, tier: Tier, caps: &DeviceCaps) -> &'static Module {
    match dtype {
        DType::F32 if caps.loads_wide(tier) => &modules::ELEM_F32_WIDE,
        DType::F32 => &modules::ELEM_F32,
        DType::F16 if tier.shader_f16() => &modules::ELEM_F16,
        DType::F16 => &modules::ELEM_F16_PACKED,
        DType::BF16 => &modules::ELEM_BF16,
    }
}

pub(super) const fn out_module(dtype: DType, tier: Tier) -> &'static Module {
    match dtype {
        DType::F32 => &modules::OUT_F32,
        DType::F16 if tier.shader_f16() => &modules::OUT_F16,
        DType::F16 => &modules::OUT_F16_PACKED,
        DType::BF16 => &modules::OUT_BF16,
    }
}

/// How `lanes` invocations exchange data: the modules of the families `shuffle` and `reduce`.
pub(super) fn share_modules(lanes: u32, tier: Tier, caps: &DeviceCaps) -> (&'static Module, &'static Module) {
    match (tier.subgroup(), &caps.subgroup_size) {
        // A group is a whole subgroup only where subgroups have one size.
        (true, Some(size)) if size.start() == size.end() && lanes == *size.start() => {
            (&modules::SHUFFLE_SUBGROUP, &modules::REDUCE_SUBGROUP)
        }
        (true, _) => (&modules::SHUFFLE_SEGMENT, &modules::REDUCE_SEGMENT),
        (false, _) => (&modules::SHUFFLE_WORKGROUP, &modules::REDUCE_WORKGROUP),
    }
}

/// The member of `number` that reads single numbers of a type.
pub(super) const fn number_module(dtype: DType) -> &'static Module {
    match dtype {
        DType::F32 => &modules::NUMBER_F32,
        DType::F16 => &modules::NUMBER_F16,
        DType::BF16 => &modules::NUMBER_BF16,
    }
}
