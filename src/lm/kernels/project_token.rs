//! A product of one row with weights: `shaders/lm/project_token.wgsl`.

use crate::kernels::{own_kernel, params};
use crate::{Binding, DeviceCaps, Kernel};

pub(super) const BINDINGS: &[Binding] = &[
    Binding::uniform("params", ProjectParams::FIELDS),
    Binding::read("x"),
    Binding::read("weight"),
    Binding::read("bias"),
    Binding::write("out"),
];

/// A product of one row with weights.
pub static PROJECT_TOKEN: Kernel = own_kernel!("lm/", "lm.", "project_token", BINDINGS);

/// Invocations of a team, and teams of a workgroup.
pub(super) const CONSTANTS: [(&str, u32); 2] = [("LANES", 32), ("TEAMS", TEAMS)];

const TEAMS: u32 = 4;

params! {
    /// The numbers of one dispatch, of this kernel and of `project_tokens`.
    ProjectParams {
        num_tokens: u32,
        cols_vec4: u32,
        num_rows: u32,
        first_row: u32,
        all_rows: u32,
        bias: u32,
        accumulate: u32,
    }
}

impl ProjectParams {
    pub(crate) fn workgroups_of_one(&self, caps: &DeviceCaps) -> [u64; 3] {
        caps.fold_grid(self.num_rows.div_ceil(TEAMS).into())
    }
}
