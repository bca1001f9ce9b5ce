//! The next token: `shaders/lm/sample_token.wgsl`.

use crate::kernels::{Binding, params};

pub(super) const BINDINGS: [Binding; 4] =
    [Binding::uniform("params"), Binding::read("logits"), Binding::write("state"), Binding::write("tokens")];

pub(super) const CONSTANTS: [(&str, u32); 1] = [("WORKGROUP_SIZE", 256)];

params! {
    /// The numbers of one dispatch.
    SampleParams {
        vocab_size: u32,
        top_k: u32,
        top_p: f32,
        temperature: f32,
        seed: u32,
    }
}
