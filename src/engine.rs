//! A GPU if there is one, else the CPU: the choice that most programs want, made once and said aloud.

use crate::adapters::name_adapter;
#[cfg(feature = "cpu")]
use crate::adapters::why_no_gpu;
use crate::{AttentionOutput, AttentionProblem, Context, ContextOptions, Element, HostInputs, PassedOver, Result};
#[cfg(feature = "cpu")]
use crate::{Error, cpu};

/// Where attention on host tensors is computed. Chosen once; a call that fails on the GPU is an error and is not
/// repeated on the CPU.
///
/// ```
/// use wattn::{AttentionProblem, AttentionShape, DType, Engine, HostInputs, HostTensor, Mask};
///
/// let shape = AttentionShape {
///     batch_size: 1, seq_len_q: 2, seq_len_kv: 2, num_q_heads: 1, num_kv_heads: 1, head_dim: 4, head_dim_v: 4,
/// };
/// let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
/// let q = HostTensor::zeros(shape.q());
/// let k = HostTensor::zeros(shape.k());
/// let v = HostTensor::new(shape.v(), vec![1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0])?;
///
/// let engine = Engine::cpu(); // or `Engine::best_blocking()?`: a GPU if there is one
/// let inputs = HostInputs::new(&q, &k, &v);
/// let output = engine.attend_blocking(&problem, &inputs)?;
/// assert_eq!(output.out.row(0, 0, 0), [1.0, 2.0, 3.0, 4.0]); // sees itself
/// assert_eq!(output.out.row(0, 1, 0), [2.0, 3.0, 4.0, 5.0]); // equal scores: the mean of both
/// println!("{engine}");
/// # Ok::<(), wattn::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Engine {
    /// A device of wgpu.
    Gpu(Context),
    /// The blockwise CPU path, with the feature `cpu`.
    #[cfg(feature = "cpu")]
    Cpu {
        /// Why there is no GPU; `None` when the CPU was asked for.
        no_gpu: Option<Error>,
    },
}

impl Engine {
    /// The best GPU that opens, else the CPU. Software devices count as none: the CPU path is faster than they are.
    ///
    /// # Errors
    /// None with the feature `cpu`; without it those of [`Context::request`], [`Error::NoAdapter`](crate::Error::NoAdapter) where there is
    /// no GPU.
    ///
    /// # Cost
    /// Loads the graphics drivers.
    pub async fn best() -> Result<Self> {
        Self::best_with(&ContextOptions::default()).await
    }

    /// The GPU that `options` describe, else the CPU. To insist on a GPU, use [`Context::request`], which fails instead.
    ///
    /// # Errors
    /// Those of [`Engine::best`].
    ///
    /// # Cost
    /// Loads the graphics drivers.
    pub async fn best_with(options: &ContextOptions) -> Result<Self> {
        match Context::request(options).await {
            Ok(context) => Ok(Self::Gpu(context)),
            #[cfg(feature = "cpu")]
            Err(error) => Ok(Self::Cpu { no_gpu: Some(error) }),
            #[cfg(not(feature = "cpu"))]
            Err(error) => Err(error),
        }
    }

    /// [`Engine::best`], waiting on this thread.
    ///
    /// # Errors
    /// Those of [`Engine::best`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn best_blocking() -> Result<Self> {
        pollster::block_on(Self::best())
    }

    /// [`Engine::best_with`], waiting on this thread.
    ///
    /// # Errors
    /// Those of [`Engine::best`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn best_with_blocking(options: &ContextOptions) -> Result<Self> {
        pollster::block_on(Self::best_with(options))
    }

    /// The CPU, without a look at the GPUs.
    #[cfg(feature = "cpu")]
    #[must_use]
    pub const fn cpu() -> Self {
        Self::Cpu { no_gpu: None }
    }

    /// The GPU, if it is one.
    #[must_use]
    pub const fn context(&self) -> Option<&Context> {
        match self {
            Self::Gpu(context) => Some(context),
            #[cfg(feature = "cpu")]
            Self::Cpu { .. } => None,
        }
    }

    /// Attention over tensors in host memory: f32 out, and the lse.
    ///
    /// # Errors
    /// Those of [`Context::attend`] or of [`cpu::attend`].
    ///
    /// # Cost
    /// That of [`Context::attend`]; on the CPU, the whole computation when the future is first polled.
    pub async fn attend<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
    ) -> Result<AttentionOutput> {
        match self {
            Self::Gpu(context) => context.attend(problem, inputs).await,
            #[cfg(feature = "cpu")]
            Self::Cpu { .. } => cpu::attend(problem, inputs),
        }
    }

    /// [`Engine::attend`], waiting on this thread.
    ///
    /// # Errors
    /// Those of [`Engine::attend`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attend_blocking<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
    ) -> Result<AttentionOutput> {
        match self {
            Self::Gpu(context) => context.attend_blocking(problem, inputs),
            #[cfg(feature = "cpu")]
            Self::Cpu { .. } => cpu::attend(problem, inputs),
        }
    }

    /// Which engine it is, and why, on one line.
    #[must_use]
    pub fn describe(&self) -> String {
        self.to_string()
    }
}

impl From<Context> for Engine {
    fn from(context: Context) -> Self {
        Self::Gpu(context)
    }
}

impl core::fmt::Display for Engine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Gpu(context) => {
                let name = name_adapter(&context.device().adapter_info());
                write!(f, "{name}, {} tier", context.caps().best_tier())?;
                match context.passed_over() {
                    [] => Ok(()),
                    passed_over => write!(f, " (passed over {})", PassedOver::list(passed_over)),
                }
            }
            #[cfg(feature = "cpu")]
            Self::Cpu { no_gpu: None } => f.write_str("CPU, blockwise"),
            #[cfg(feature = "cpu")]
            Self::Cpu { no_gpu: Some(reason) } => write!(f, "CPU, blockwise ({})", why_no_gpu(reason)),
        }
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;

    #[test]
    fn a_missing_gpu_is_told() {
        let engine =
            Engine::best_with_blocking(&ContextOptions::default().with_adapter_name("no adapter is called this"))
                .expect("the CPU stands in");
        assert!(engine.context().is_none());
        assert!(engine.describe().starts_with("CPU, blockwise (no GPU adapter named like"), "{engine}");
        assert_eq!(Engine::cpu().describe(), "CPU, blockwise");
    }
}
