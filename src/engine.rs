//! A GPU if there is one, else the CPU: decided once, and reported.

#[cfg(feature = "cpu")]
use crate::Error;
use crate::device::adapters::name_adapter;
#[cfg(feature = "cpu")]
use crate::device::adapters::why_no_gpu;
use crate::{
    AttentionOutput, AttentionProblem, Context, ContextOptions, Element, HostBlockLists, HostInputs, PassedOver,
    Pending, Result, SelectionInputs, SelectionProblem, cpu,
};

/// The place where attention on host tensors is computed. It is chosen once; a call that fails on the GPU returns the error and is not
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
/// let engine = Engine::cpu(); // or `Engine::best().wait()?`: a GPU if there is one
/// let inputs = HostInputs::new(&q, &k, &v);
/// let output = engine.attend(&problem, &inputs).wait()?;
/// assert_eq!(output.out.row(0, 0, 0), [1.0, 2.0, 3.0, 4.0]); // sees itself
/// assert_eq!(output.out.row(0, 1, 0), [2.0, 3.0, 4.0, 5.0]); // equal scores: the mean of both
/// println!("{engine}");
/// # Ok::<(), wattn::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Engine {
    /// A wgpu device.
    Gpu(Context),
    /// The blockwise CPU path, with the feature `cpu`.
    #[cfg(feature = "cpu")]
    Cpu {
        /// The reason for having no GPU; `None` when the CPU was asked for.
        no_gpu: Option<Error>,
    },
    /// The definition in f64 ([`cpu::oracle`]), one row at a time: exact and slow.
    Oracle,
}

impl Engine {
    /// The best GPU that opens, else the CPU. Software devices do not count: the CPU path is faster.
    ///
    /// # Errors
    /// None with the feature `cpu`; without it the errors of [`Context::request`], such as
    /// [`Error::NoAdapter`](crate::Error::NoAdapter) where there is no GPU.
    ///
    /// # Cost
    /// Loads the graphics drivers.
    pub fn best() -> Pending<'static, Result<Self>> {
        Pending::new(async { Self::of(Context::request(&ContextOptions::default()).await) })
    }

    /// The GPU that `options` describe, else the CPU. To insist on a GPU, use [`Context::request`], which fails instead.
    ///
    /// # Errors
    /// The errors of [`Engine::best`].
    ///
    /// # Cost
    /// Loads the graphics drivers.
    pub fn best_with(options: &ContextOptions) -> Pending<'_, Result<Self>> {
        let context = Context::request(options);
        Pending::new(async { Self::of(context.await) })
    }

    fn of(context: Result<Context>) -> Result<Self> {
        match context {
            Ok(context) => Ok(Self::Gpu(context)),
            #[cfg(feature = "cpu")]
            Err(error) => Ok(Self::Cpu { no_gpu: Some(error) }),
            #[cfg(not(feature = "cpu"))]
            Err(error) => Err(error),
        }
    }

    /// The CPU; GPUs are not looked for.
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
            Self::Oracle => None,
        }
    }

    /// Attention over tensors in host memory: f32 out, and the lse.
    ///
    /// # Errors
    /// The errors of [`Context::attend`], [`cpu::attend`] or [`cpu::oracle::attend`].
    ///
    /// # Cost
    /// The cost of [`Context::attend`]; without a GPU, the whole computation before the call returns.
    pub fn attend<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
    ) -> Pending<'static, Result<AttentionOutput>> {
        match self {
            Self::Gpu(context) => context.attend(problem, inputs),
            #[cfg(feature = "cpu")]
            Self::Cpu { .. } => Pending::ready(cpu::attend(problem, inputs)),
            Self::Oracle => Pending::ready(cpu::oracle::attend(problem, inputs)),
        }
    }

    /// Selects blocks of keys over tensors in host memory.
    ///
    /// # Errors
    /// The errors of [`Context::select`], [`cpu::select`] or [`cpu::oracle::select`].
    ///
    /// # Cost
    /// The cost of [`Context::select`]; without a GPU, the whole computation before the call returns.
    pub fn select<T: Element>(
        &self,
        problem: &SelectionProblem,
        inputs: &SelectionInputs<'_, T>,
    ) -> Pending<'static, Result<HostBlockLists>> {
        match self {
            Self::Gpu(context) => context.select(problem, inputs),
            #[cfg(feature = "cpu")]
            Self::Cpu { .. } => Pending::ready(cpu::select(problem, inputs)),
            Self::Oracle => Pending::ready(cpu::oracle::select(problem, inputs)),
        }
    }

    /// The engine and the reason for it, on one line.
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
                write!(f, "{name}, {} tier", context.caps().tier().unwrap_or_else(|| context.caps().best_tier()))?;
                match context.passed_over() {
                    [] => Ok(()),
                    passed_over => write!(f, " (passed over {})", PassedOver::list(passed_over)),
                }
            }
            Self::Oracle => f.write_str("CPU, f64 oracle"),
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
        let engine = Engine::best_with(&ContextOptions::default().with_adapter_name("no adapter is called this"))
            .wait()
            .expect("the CPU stands in");
        assert!(engine.context().is_none());
        assert!(engine.describe().starts_with("CPU, blockwise (no GPU adapter named like"), "{engine}");
        assert_eq!(Engine::cpu().describe(), "CPU, blockwise");
    }
}
