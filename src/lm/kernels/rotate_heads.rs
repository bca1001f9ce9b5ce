//! Heads, to attention and into the cache: `shaders/lm/rotate_heads.wgsl`.

use crate::kernels::{Binding, params};

pub(super) const BINDINGS: [Binding; 8] = [
    Binding::uniform("params"),
    Binding::read("state"),
    Binding::read("qkv"),
    Binding::read("norms"),
    Binding::read("angles"),
    Binding::write("q"),
    Binding::write("k"),
    Binding::write("v"),
];

pub(super) const CONSTANTS: [(&str, u32); 1] = [("WORKGROUP_SIZE", 32)];

params! {
    /// The numbers of one dispatch.
    HeadParams {
        num_q_heads: u32,
        num_kv_heads: u32,
        head_dim: u32,
        eps: f32,
    }
}
