//! The gate of the MLP: `shaders/lm/gate_mlp.wgsl`.

use super::spread;
use crate::kernels::{Binding, params};

pub(super) const BINDINGS: [Binding; 3] = [Binding::uniform("params"), Binding::read("gate_up"), Binding::write("out")];

pub(super) const CONSTANTS: [(&str, u32); 1] = [("WORKGROUP_SIZE", 64)];

params! {
    /// The numbers of one dispatch.
    GateParams {
        num_tokens: u32,
        size_vec4: u32,
    }
}

impl GateParams {
    pub(crate) fn workgroups(&self) -> [u32; 3] {
        spread((u64::from(self.num_tokens) * u64::from(self.size_vec4)).div_ceil(64))
    }
}
