//! A stream of reads and writes: `shaders/bench/copy_words.wgsl`.

use crate::kernels::{Binding, params};

pub(super) const BINDINGS: [Binding; 3] =
    [Binding::uniform("params"), Binding::read("words"), Binding::write("copied")];

params! {
    /// The numbers of one dispatch.
    CopyParams {
        num_vec4: u32,
    }
}
