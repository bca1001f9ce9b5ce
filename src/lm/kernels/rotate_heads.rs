//! Heads, to attention and into the cache: `shaders/lm/rotate_heads.wgsl`.

use crate::kernels::{own_kernel, params};
use crate::{Binding, DeviceCaps, Kernel};

const BINDINGS: &[Binding] = &[
    Binding::uniform("params", HeadParams::FIELDS),
    Binding::read("state"),
    Binding::read("qkv"),
    Binding::read("norms"),
    Binding::read("angles"),
    Binding::write("q"),
    Binding::write("k"),
    Binding::write("v"),
];

/// Heads, to attention and into the cache.
pub static ROTATE_HEADS: Kernel = own_kernel!("lm/", "lm.", "rotate_heads", BINDINGS);

pub(super) const CONSTANTS: [(&str, u32); 1] = [("WORKGROUP_SIZE", 32)];

params! {
    /// The numbers of one dispatch.
    HeadParams {
        num_q_heads: u32,
        num_kv_heads: u32,
        head_dim: u32,
        num_tokens: u32,
        eps: f32,
    }
}

impl HeadParams {
    pub(crate) fn workgroups(&self, caps: &DeviceCaps) -> [u64; 3] {
        let [tokens, more, _] = caps.fold_grid(self.num_tokens.into());
        [u64::from(self.num_q_heads) + 2 * u64::from(self.num_kv_heads), tokens, more]
    }
}
