//! Rows of the embedding: `shaders/lm/embed_tokens.wgsl`.

use crate::kernels::{own_kernel, params};
use crate::{Binding, DeviceCaps, Kernel};

const BINDINGS: &[Binding] = &[
    Binding::uniform("params", EmbedParams::FIELDS),
    Binding::read("tokens"),
    Binding::read("embedding"),
    Binding::write("hidden"),
];

/// Rows of the embedding.
pub static EMBED_TOKENS: Kernel = own_kernel!("lm/", "lm.", "embed_tokens", BINDINGS);

/// Invocations of a workgroup, each with four columns of a token.
const WORKGROUP_SIZE: u32 = 64;

pub(super) const CONSTANTS: [(&str, u32); 1] = [("WORKGROUP_SIZE", WORKGROUP_SIZE)];

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
    pub(crate) fn workgroups(&self, caps: &DeviceCaps) -> [u64; 3] {
        caps.fold_grid((u64::from(self.num_tokens) * u64::from(self.width_vec4)).div_ceil(WORKGROUP_SIZE.into()))
    }
}
