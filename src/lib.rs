//! Blockwise flash attention on any GPU through [wgpu](https://wgpu.rs), with an exact CPU path.
//!
//! `out = softmax(softmax_scale * q k^T + mask) v`, tile by tile with an online softmax: memory grows with the sequence,
//! never with its square. f32, f16 and bf16 storage, f32 arithmetic; full, causal and window masks; grouped heads; long
//! KV caches in splits; strided views of buffers that are already there.
//!
//! # Flow
//!
//! ```text
//!   numbers            arithmetic        compile once     check once          every step
//!
//! AttentionProblem --> AttentionPlan --> Attention ---> BoundAttention ---> encode ---> read
//!   what               how, here         pipelines      bind groups         no cost     host memory
//! ```
//!
//! A problem and a plan are plain data and need no GPU. Everything that can fail has failed before `encode`.
//!
//! # Slices in, vectors out
//!
//! ```
//! use wattn::{AttentionProblem, AttentionShape, DType, Engine, HostInputs, HostTensor, Mask};
//!
//! let shape = AttentionShape {
//!     batch_size: 1, seq_len_q: 4, seq_len_kv: 6, num_q_heads: 4, num_kv_heads: 2, head_dim: 8, head_dim_v: 8,
//! };
//! let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
//! let q = HostTensor::new(shape.q(), vec![0.5; 4 * 4 * 8])?; // [batch, seq, head, dim]
//! let k = HostTensor::new(shape.k(), vec![0.5; 6 * 2 * 8])?;
//! let v = HostTensor::new(shape.v(), vec![2.0; 6 * 2 * 8])?;
//!
//! let engine = Engine::best().wait()?; // a GPU if there is one, else the CPU; `println!("{engine}")` says which
//! let output = engine.attend(&problem, &HostInputs::new(&q, &k, &v)).wait()?;
//! assert!((output.out.row(0, 3, 1)[0] - 2.0).abs() < 1e-5);
//! # Ok::<(), wattn::Error>(())
//! ```
//!
//! # In a program that has a device
//!
//! Open it with [`wanted_features`] and [`wanted_limits`]: without them kernels stay within WebGPU's defaults, which may take twice as
//! long. A plan names the better tier that it missed.
//!
//! ```no_run
//! # use wattn::*;
//! # fn frame(device: wgpu::Device, queue: wgpu::Queue, problem: AttentionProblem, q: wgpu::Buffer, k: wgpu::Buffer,
//! #          v: wgpu::Buffer, out: wgpu::Buffer, mut encoder: wgpu::CommandEncoder) -> wattn::Result<()> {
//! // Once.
//! let context = Context::new(device, queue)?;
//! let plan = AttentionPlan::new(&problem, context.caps())?; // println!("{plan}") shows what will run
//! let [batch, seq, heads, dim] = problem.q_shape();
//! let layout = Layout::seq_major(batch, seq, heads, dim); // any strides
//! let bound = Attention::prepare(&context, &plan)?.bind(AttentionArgs::new(
//!     TensorView::new(&q, DType::F16, layout),
//!     TensorView::new(&k, DType::F16, layout),
//!     TensorView::new(&v, DType::F16, layout),
//!     TensorViewMut::new(&out, DType::F16, layout),
//! ))?; // `.with_seq_lens_kv(..)` takes a buffer of lengths, read when the GPU runs
//! // Every frame.
//! bound.encode(&mut encoder);
//! # Ok(())
//! # }
//! ```
//!
//! # Sparse attention
//!
//! Long contexts need not be quadratic. A *selection* finds, for every block of queries, the blocks of keys that matter
//! ([`Hip`], [`InfiniteHip`]: no training), and attention then reads those, the first keys and a window:
//!
//! ```
//! use wattn::{
//!     AttentionProblem, AttentionShape, DType, Engine, Hip, HostInputs, HostTensor, Mask, SelectionProblem, SparseOptions,
//! };
//! # let shape = AttentionShape {
//! #     batch_size: 1, seq_len_q: 4, seq_len_kv: 600, num_q_heads: 2, num_kv_heads: 1, head_dim: 8, head_dim_v: 8,
//! # };
//! # let [q, k, v] = [shape.q(), shape.k(), shape.v()].map(HostTensor::<f32>::zeros);
//! let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
//! let selection = SelectionProblem::new(shape, DType::F32, Hip::default()); // or `Preset::ThreeK`
//! let inputs = HostInputs::new(&q, &k, &v);
//! let engine = Engine::best().wait()?;
//! let sparse = engine.attend_sparse(&problem, &selection, &inputs, &SparseOptions::default()).wait()?;
//! println!("{}", sparse.path); // dense: at this length selection does not pay
//! # Ok::<(), wattn::Error>(())
//! ```
//!
//! On a GPU of your own, [`Selection`] writes its lists into two buffers and [`Attention`] reads them, with nothing read
//! back: [`AttentionProblem::with_blocks`], [`BoundSelection::encode_step`]. [`Pool`], [`BlockScore`] and [`TopK`] make up other kinds
//! of selection, as in the example `quest`. [`quality`] measures what a selection loses.
//!
//! # Language models
//!
//! With the feature `lm`, `wattn::lm` runs Llama, Mistral, Qwen2 and Qwen3 checkpoints on this attention.
//!
//! # Benchmarks
//!
//! With the feature `bench`, `wattn::bench` measures what a device can do and how much of it these operators reach.
//! With the feature `tune`, `wattn::tune` times the tilings that a device accepts and keeps the fastest whose results are correct.
//!
//! # What a call costs
//!
//! | call | validates | compiles | allocates on the GPU | submits | waits |
//! |---|---|---|---|---|---|
//! | [`AttentionPlan::new`], [`SelectionPlan::new`], [`MergePlan::new`] | shapes, limits | | | | |
//! | [`Context::new`] | limits | | two small buffers | | |
//! | [`Context::request`], [`Context::open`] | | with matrices, one small shader | two small buffers | with matrices, one workgroup | for the drivers, and that |
//! | [`Context::check_matrices`] | | one small shader | buffers, for a moment | yes | [`Pending`] |
//! | [`Attention::prepare`], [`Selection::prepare`], [`Merge::prepare`] | features | on a cache miss | | | |
//! | [`Attention::bind_with`], [`Selection::bind_with`], [`Merge::bind`] | views, usages, sizes | | bind groups, small uniforms | | |
//! | [`Attention::bind`], [`Selection::bind`] | the same | | and [`Workspace`]s | | |
//! | [`BoundAttention::encode`], [`BoundSelection::encode_step`], [`BoundMerge::encode`] | | | | | |
//! | [`Context::calibrate_blocking`], [`Context::measure_speed_blocking`] | | on a cache miss | buffers, for a moment | yes | thread |
//! | [`Context::save_pipelines`] | | | | | for the disk |
//! | [`Context::check_blocks`] | the lists | on a cache miss | a small buffer | yes | [`Pending`] |
//! | [`Context::read`] | the view | | a staging buffer | a copy | [`Pending`] |
//! | [`Context::attend`], [`Context::select`], [`Engine::attend`], [`Engine::select`], [`Engine::attend_sparse`] | all | on a cache miss | all | yes | [`Pending`] |
//! | [`cpu::attend`], [`cpu::select`], [`cpu::merge`] | all | | nothing | | thread |
//!
//! A [`Pending`] is awaited, or waited for on this thread; its work has been submitted. Engines without a GPU finish before they return it.
//!
//! # Rules
//!
//! - Head widths are multiples of 4 up to 256; `num_q_heads` is a multiple of `num_kv_heads`.
//! - Query `i` sits at position `i + seq_len_kv - seq_len_q`: the last query on the last key.
//! - A row that sees no key gives zeros and [`LSE_EMPTY`].
//! - A problem that a device cannot compute is an [`Error`] with names and numbers; nothing falls back in silence. The CPU is used
//!   where the caller asks for it, and by [`Engine::best`], which keeps the reason.
//!
//! More: [`docs::architecture`], [`docs::numerics`], [`docs::performance`], [`docs::decisions`].

#[cfg(feature = "bench")]
pub mod bench;
mod caps;
pub mod cpu;
mod device;
mod dtype;
mod engine;
mod error;
mod kept_file;
pub mod kernels;
#[cfg(feature = "lm")]
pub mod lm;
mod ops;
mod parallel;
mod pending;
mod plan;
mod problem;
pub mod quality;
mod setters;
mod shader;
mod sparse;
mod tensor;
#[cfg(feature = "tune")]
pub mod tune;
mod wanted;

pub use caps::{DeviceCaps, MatrixTile, Tier};
pub use device::{
    Context, ContextOptions, Pipeline, PipelineCacheState, Slots, SoftwareAdapters, Step, adapters, describe_adapter,
    name_adapter,
};
#[doc(hidden)]
pub use device::{Edit, pack_kept, unpack_kept};
pub use dtype::{DType, Element};
pub use engine::Engine;
pub use error::{Error, PassedOver, Result};
pub use ops::{
    Attention, AttentionArgs, BindArgs, BlockListsView, BlockScore, BlockScoreArgs, Bound, BoundAttention, BoundMerge,
    BoundSelection, Merge, MergeArgs, Operator, Pool, PoolArgs, Selection, SelectionArgs, SelectionMemory, TopK,
    TopKArgs, U32View, Workspace,
};
pub use pending::Pending;
pub use plan::{
    AttentionClass, AttentionPlan, BlockScorePlan, Candidates, DeviceSpeed, Dispatch, DispatchBudget, Loads, MaskKind,
    MergePlan, MethodKind, OneDispatch, OperatorPlan, PoolPlan, SelectionClass, SelectionPlan, SelectionTiling,
    Sharing, Stretch, Tiling, TopKPlan, TunedAt, Tuning,
};
#[doc(hidden)]
pub use plan::{MatrixCheck, check_dispatches};
#[doc(hidden)]
pub use problem::AnySelector;
pub use problem::{
    Alibi, AttentionOutput, AttentionProblem, AttentionShape, BatchIndex, Bias, BlockListSpec, BlockScoreProblem,
    BlockScoring, Granularity, GroupBounds, HeadReduction, Hip, HostBlockLists, HostInputs, InfiniteHip, KernelInputs,
    KernelStep, MASKED_SCORE, Margin, Mark, Mask, MergeProblem, PADDING, PoolProblem, Pooling, Preset, QuerySampling,
    Reduction, Representative, ScoreMod, SeenKeys, SelectionInputs, SelectionMethod, SelectionProblem, Selector,
    SelectorStep, Sinks, Softcap, Stage, TopKProblem, published_slopes,
};
pub use shader::{Binding, BindingKind, Constant, Kernel, Module, Need, Specialization, Trust};
pub use sparse::{AttentionPath, Measure, SparseOptions, SparseOutput};
pub use tensor::{AnyHostTensor, HostTensor, Layout, TensorView, TensorViewMut};
pub use wanted::{MissedTier, wanted_features, wanted_limits};

/// The lse of a row that sees no key: finite, and below every lse that finite scores give.
pub const LSE_EMPTY: f32 = -3.0e38;

/// A modified score of at most this hides its key from the row, as -infinity does. It is above the least number of f32 and of bf16, which
/// other libraries write into masks, and below every score that is meant as one.
pub const LEAST_SCORE: f32 = -2.0e38;

/// Pages for readers of the code: its structure, its decisions, its measurements.
pub mod docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("docs/numerics.md")]
    pub mod numerics {}
    #[doc = include_str!("docs/devices.md")]
    pub mod devices {}
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}
    #[doc = include_str!("docs/decisions.md")]
    pub mod decisions {}
    #[doc = include_str!("docs/style.md")]
    pub mod style {}
    #[doc = include_str!("docs/changelog.md")]
    pub mod changelog {}
    #[doc = include_str!("docs/notices.md")]
    pub mod notices {}
}

/// The examples of the README compile.
#[cfg(all(doctest, feature = "lm", feature = "tune"))]
#[doc = include_str!("../README.md")]
struct Readme;
