//! A product of many rows with weights: `shaders/lm/project_tokens.wgsl`. It has the bindings and parameters of `project_token`.

use super::project_token::{BINDINGS, ProjectParams};
use crate::kernels::own_kernel;
use crate::{DeviceCaps, Kernel};

/// A product of many rows with weights.
pub static PROJECT_TOKENS: Kernel = own_kernel!("lm/", "lm.", "project_tokens", BINDINGS);

/// Tokens and outputs of a workgroup.
const TILE: u32 = 64;

pub(super) const CONSTANTS: [(&str, u32); 1] = [("TILE", TILE)];

impl ProjectParams {
    pub(crate) fn workgroups_of_many(&self, caps: &DeviceCaps) -> [u64; 3] {
        let [rows, more, _] = caps.fold_grid(self.num_rows.div_ceil(TILE).into());
        [rows, self.num_tokens.div_ceil(TILE).into(), more]
    }
}
