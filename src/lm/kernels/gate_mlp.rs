//! The gate of the MLP: `shaders/lm/gate_mlp.wgsl`.

use crate::kernels::{own_kernel, params};
use crate::{Binding, DeviceCaps, Kernel};

const BINDINGS: &[Binding] =
    &[Binding::uniform("params", GateParams::FIELDS), Binding::read("gate_up"), Binding::write("out")];

/// The gate of the MLP.
pub static GATE_MLP: Kernel = own_kernel!("lm/", "lm.", "gate_mlp", BINDINGS);

/// Invocations of a workgroup, each with four columns of a token.
const WORKGROUP_SIZE: u32 = 64;

pub(super) const CONSTANTS: [(&str, u32); 1] = [("WORKGROUP_SIZE", WORKGROUP_SIZE)];

params! {
    /// The numbers of one dispatch.
    GateParams {
        num_tokens: u32,
        size_vec4: u32,
    }
}

impl GateParams {
    pub(crate) fn workgroups(&self, caps: &DeviceCaps) -> [u64; 3] {
        caps.fold_grid((u64::from(self.num_tokens) * u64::from(self.size_vec4)).div_ceil(WORKGROUP_SIZE.into()))
    }
}
