//! Rows of the embedding: `shaders/lm/embed_tokens.wgsl`.

use super::spread;
use crate::kernels::{Binding, params};

pub(super) const BINDINGS: [Binding; 4] =
    [Binding::uniform("params"), Binding::read("tokens"), Binding::read("embedding"), Binding::write("hidden")];

pub(super) const CONSTANTS: [(&str, u32); 1] = [("WORKGROUP_SIZE", 64)];

params! {
    /// The numbers of one dispatch.
    EmbedParams {
        num_tokens: u32,
        width_vec4: u32,
        first_row: u32,
        num_rows: u32,
    }
}

impl EmbedParams {
    pub(crate) fn workgroups(&self) -> [u32; 3] {
        spread((u64::from(self.num_tokens) * u64::from(self.width_vec4)).div_ceil(64))
    }
}
