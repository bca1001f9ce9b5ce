//! The next token: `shaders/lm/sample_token.wgsl`.

use crate::kernels::{own_kernel, params};
use crate::{Binding, Kernel};

const BINDINGS: &[Binding] = &[
    Binding::uniform("params", SampleParams::FIELDS),
    Binding::read("logits"),
    Binding::write("state"),
    Binding::write("tokens"),
];

/// The next token.
pub static SAMPLE_TOKEN: Kernel = own_kernel!("lm/", "lm.", "sample_token", BINDINGS);

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
