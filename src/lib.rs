//! Attention for every GPU.

mod caps;
mod context;
pub mod cpu;
mod dtype;
mod engine;
mod error;
mod kernels;
mod ops;
mod pipeline;
mod plan;
mod problem;
mod readback;
mod shader;
mod tensor;

pub use caps::{DeviceCaps, MatrixTile, Tier};
pub use context::{Context, ContextOptions, SoftwareAdapters, adapters, describe_adapter};
pub use cpu::{AttentionOutput, HostInputs};
pub use dtype::{DType, Element};
pub use engine::Engine;
pub use error::{Error, Result};
pub use kernels::{Binding, BindingKind, KernelId};
pub use ops::{Attention, AttentionArgs, BoundAttention, BoundMerge, Merge, MergeArgs, U32View, Workspace};
pub use plan::{AttentionPlan, Dispatch, MergePlan, Tiling};
pub use problem::{AttentionProblem, AttentionShape, Mask, MergeProblem};
pub use shader::Specialization;
pub use tensor::{HostTensor, Layout, TensorView, TensorViewMut};

/// The lse of a row that sees no key: finite, and below every lse that finite scores give.
pub const LSE_EMPTY: f32 = -3.0e38;
