//! Attention for every GPU.

mod caps;
pub mod cpu;
mod dtype;
mod error;
mod problem;
mod tensor;

pub use caps::{DeviceCaps, MatrixTile, Tier};
pub use cpu::{AttentionOutput, HostInputs};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use problem::{AttentionProblem, AttentionShape, Mask, MergeProblem};
pub use tensor::{HostTensor, Layout, TensorView, TensorViewMut};

/// The lse of a row that sees no key: finite, and below every lse that finite scores give.
pub const LSE_EMPTY: f32 = -3.0e38;
