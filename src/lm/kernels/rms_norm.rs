//! A norm of rows: `shaders/lm/rms_norm.wgsl`.

use crate::kernels::{own_kernel, params};
use crate::{Binding, DeviceCaps, Kernel};

const BINDINGS: &[Binding] = &[
    Binding::uniform("params", NormParams::FIELDS),
    Binding::read("x"),
    Binding::read("weight"),
    Binding::write("out"),
];

/// A norm of rows.
pub static RMS_NORM: Kernel = own_kernel!("lm/", "lm.", "rms_norm", BINDINGS);

pub(super) const CONSTANTS: [(&str, u32); 1] = [("WORKGROUP_SIZE", 64)];

params! {
    /// The numbers of one dispatch.
    NormParams {
        width_vec4: u32,
        first_row: u32,
        num_rows: u32,
        eps: f32,
        scale: f32,
    }
}

impl NormParams {
    pub(crate) fn workgroups(&self, caps: &DeviceCaps) -> [u64; 3] {
        caps.fold_grid(self.num_rows.into())
    }
}
