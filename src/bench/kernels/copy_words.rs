//! A stream of reads and writes: `shaders/bench/copy_words.wgsl`.

use crate::kernels::{own_kernel, params};
use crate::{Binding, Kernel};

const BINDINGS: &[Binding] =
    &[Binding::uniform("params", CopyParams::FIELDS), Binding::read("words"), Binding::write("copied")];

pub(super) static COPY_WORDS: Kernel = own_kernel!("bench/", "bench.", "copy_words", BINDINGS);

params! {
    /// The numbers of one dispatch.
    CopyParams {
        num_vec4: u32,
    }
}
