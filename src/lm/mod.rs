//! Language models on wattn: Llama, Mistral, Qwen2 and Qwen3 from Hugging Face files, on the GPU or the CPU, with dense or
//! sparse attention in each layer. Needs the feature `lm`.
//!
//! Attention comes from the library's public items; the other kernels are few and short.
//!
//! ```no_run
//! use std::{ops::ControlFlow, path::Path, sync::Arc};
//! use wattn::lm::{LayerAttention, Model, Sampling, Session, SessionOptions, TextStream};
//! use wattn::{Engine, Hip};
//!
//! let model = Arc::new(Model::open(Path::new("Qwen3-0.6B"))?);
//! let options = SessionOptions::new(model.config(), 32768).with_attention(&LayerAttention::select(Hip::decode()), 3);
//! let mut session = Session::new(&model, &Engine::best().wait()?, &options)?;
//! let prompt = model.tokenizer().encode_prompt("Once upon a time")?;
//! session.read(&prompt)?;
//! let mut stream = TextStream::after(model.tokenizer(), &prompt)?;
//! session.generate(64, &Sampling::GREEDY, |token| {
//!     print!("{}", stream.push(token).unwrap_or_default());
//!     ControlFlow::Continue(())
//! })?;
//! print!("{}", stream.finish()?);
//! # Ok::<(), wattn::lm::LmError>(())
//! ```

mod checkpoint;
mod config;
mod cpu;
mod error;
mod files;
mod gpu;
mod json;
pub mod kernels;
mod matrix;
mod model;
mod options;
mod problems;
mod rope;
mod runner;
mod session;
mod stream;
mod tokenizer;
mod weights;

pub use checkpoint::Checkpoint;
pub use config::{Architecture, LmConfig};
pub use error::{LmError, LmResult};
pub use kernels::{LmVariant, WeightElem};
pub use matrix::{Elements, Matrix};
pub use model::Model;
pub use options::{ChunkLists, LayerAttention, ListSource, Sampling, SessionOptions};
pub use rope::{Rope, RopeScaling};
pub use runner::Stop;
pub use session::Session;
pub use stream::TextStream;
pub use tokenizer::TextTokenizer;

/// The kernels of `shaders/lm` on the CPU. For tests.
#[doc(hidden)]
pub mod twins {
    pub use super::cpu::{
        Heads, embed_tokens, gate_mlp, project_token, project_tokens, rms_norm, rotate_heads, sample_token,
    };
}

/// Runs one kernel and waits for nothing. `params` are the words of its uniform, `buffers` those of its other bindings. For
/// tests.
///
/// # Errors
/// The errors of the device.
#[doc(hidden)]
pub fn run_kernel(
    ctx: &crate::Context,
    variant: LmVariant,
    params: &[u32],
    buffers: &[&wgpu::Buffer],
    workgroups: [u32; 3],
) -> LmResult<()> {
    gpu::run(ctx, variant, bytemuck::cast_slice(params), buffers, workgroups)
}
