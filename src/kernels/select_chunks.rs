//! The best chunks of one stage of InfiniteHiP: `shaders/select_chunks.wgsl`. Its uniforms are those of
//! `score_chunks`.

use super::{Binding, Kernel, own_kernel};
use crate::PADDING;
use crate::shader::Constant;

const BINDINGS: &[Binding] = &[
    Binding::read("scores"),
    Binding::write("cache"),
    Binding::write("block_indices"),
    Binding::write("block_counts"),
];

/// The best chunks of one stage of InfiniteHiP.
pub static SELECT_CHUNKS: Kernel =
    own_kernel!("select_chunks", BINDINGS).declaring(&[Constant::u32("PADDING", PADDING)]);
