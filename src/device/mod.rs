//! A device and the objects that run on it: adapters, the context, pipelines, bound buffers, and reading back.

pub(crate) mod adapters;
pub(crate) mod check_matrices;
pub(crate) mod context;
pub(crate) mod descriptor;
pub(crate) mod matrix_verdict;
pub(crate) mod pipeline;
pub(crate) mod pipeline_store;
mod readback;
pub(crate) mod slots;
pub(crate) mod step;

pub use adapters::{ContextOptions, SoftwareAdapters, adapters, describe_adapter, name_adapter};
#[doc(hidden)]
pub use check_matrices::Edit;
pub use context::Context;
#[doc(hidden)]
pub use matrix_verdict::{pack_kept, unpack_kept};
pub use pipeline::Pipeline;
pub use pipeline_store::PipelineCacheState;
pub use slots::Slots;
pub use step::Step;
