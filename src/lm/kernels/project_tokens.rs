//! A product of many rows with weights: `shaders/lm/project_tokens.wgsl`. Bindings and parameters are those of
//! `project_token`.

use super::project_token::ProjectParams;

/// Tokens and outputs of a workgroup.
const TILE: u32 = 64;

impl ProjectParams {
    pub(crate) fn workgroups_of_many(&self) -> [u64; 3] {
        [self.num_rows.div_ceil(TILE).into(), self.num_tokens.div_ceil(TILE).into(), 1]
    }
}
