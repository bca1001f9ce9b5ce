//! Opens the engine: the one place where the program chooses between GPU, CPU and oracle.

mod cpu_prefix;
mod gpu_prefix;
mod sparse_prefix;
pub(crate) mod tunings;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use wattn::{
    AttentionOutput, Context, ContextOptions, Element, HostTensor, PipelineCacheState, Result, SoftwareAdapters, Tier,
};

use crate::args::{Backend, EngineArgs};
use crate::failure::Failure;
use crate::files;
use cpu_prefix::CpuPrefix;
use gpu_prefix::GpuPrefix;
pub(crate) use sparse_prefix::{SetLists, SparsePrefix};

/// The devices that this run opened.
static OPENED: Mutex<Vec<Context>> = Mutex::new(Vec::new());

/// Saves compiled pipelines for the next run, and closes the devices. A cache that cannot be written is no error.
pub(crate) fn keep_pipelines() {
    for context in OPENED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        if let Err(error) = context.save_pipelines() {
            files::note(&format!("note: {error}"));
        }
    }
}

/// Registers a device whose pipelines [`keep_pipelines`] saves.
pub(crate) fn keep_later(context: &Context) {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner).push(context.clone());
}

/// Devices are opened with the pipelines and verdicts in the user's cache folder.
pub(crate) fn options() -> ContextOptions {
    let options = ContextOptions::default();
    match cache_folder() {
        Some(folder) => options.with_pipeline_cache(folder),
        None => options,
    }
}

/// The program's part of the user's cache folder.
fn cache_folder() -> Option<PathBuf> {
    Some(dirs::cache_dir()?.join("wattn"))
}

/// Width of a one-hot value row: one column for each byte.
pub(crate) const BYTES: u32 = 256;

/// The library's engine, opened by the arguments.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) inner: wattn::Engine,
    /// The reason for taking the CPU after looking for a GPU.
    pub(crate) passed_over: Option<String>,
}

impl From<wattn::Engine> for Engine {
    fn from(inner: wattn::Engine) -> Self {
        Self { inner, passed_over: None }
    }
}

impl Engine {
    pub(crate) fn open(args: &EngineArgs) -> Result<Self, Failure> {
        args.check()?;
        match args.backend {
            Backend::Cpu => Ok(wattn::Engine::cpu().into()),
            Backend::Oracle => Ok(wattn::Engine::Oracle.into()),
            Backend::Gpu => Self::open_gpu(args, SoftwareAdapters::Accept),
            // A named GPU, or forced kernels, must not be replaced by anything else.
            Backend::Auto if args.adapter.is_some() || args.tier.is_some() => {
                Self::open_gpu(args, SoftwareAdapters::Accept)
            }
            // The CPU path is faster than a software device.
            Backend::Auto => Self::open_gpu(args, SoftwareAdapters::Refuse).or_else(|failure| {
                let why = match failure {
                    Failure::Attention(error) => wattn::Engine::Cpu { no_gpu: Some(error) }.describe(),
                    other => format!("CPU, blockwise ({})", other.line()),
                };
                Ok(Self { inner: wattn::Engine::cpu(), passed_over: Some(why) })
            }),
        }
    }

    fn open_gpu(args: &EngineArgs, software: SoftwareAdapters) -> Result<Self, Failure> {
        let mut options = if args.no_cache { ContextOptions::default() } else { options() }.with_software(software);
        if let Some(name) = &args.adapter {
            options = options.with_adapter_name(name);
        }
        let mut context = Context::request(&options).wait()?;
        for passed_over in context.passed_over() {
            files::note(&format!("note: passed over {passed_over}"));
        }
        if let PipelineCacheState::Ignored { path, reason } = context.pipeline_cache_state() {
            files::note(&format!("note: {} is ignored: {reason}", path.display()));
        }
        keep_later(&context);
        // No watchdog watches a software device.
        if !context.caps().software {
            context = context.with_budget(context.calibrate_blocking()?);
        }
        context = tunings::apply(context, args)?;
        if let Some(tier) = args.tier {
            let tier = Tier::from(tier);
            context.caps().require(tier)?;
            context = context.with_tier(tier);
        }
        Ok(wattn::Engine::from(context).into())
    }

    /// The engine's device and, if that is not the first choice of `auto`, the reason.
    pub(crate) fn describe(&self) -> String {
        match (&self.inner, &self.passed_over) {
            (wattn::Engine::Gpu(context), _) => {
                let (name, caps) = (wattn::name_adapter(&context.device().adapter_info()), context.caps());
                let tuned = if caps.tier().is_none() && caps.tuning().is_some() { ", tuned" } else { "" };
                format!("{name}, {} tier{tuned}", tier_of(context))
            }
            (_, Some(why)) => why.clone(),
            (inner, None) => inner.describe(),
        }
    }

    /// Keeps keys and values on the engine's side; queries arrive in chunks of up to `chunk` rows.
    ///
    /// `keys` holds one `[1, len, 1, head_dim]` tensor for each head. Value j is the one-hot row of `bytes[j]`, the
    /// same in all heads, hence compact here.
    pub(crate) fn prefix_attention<'a, T: Element>(
        &'a self,
        keys: &'a [HostTensor<T>],
        bytes: &[u8],
        softmax_scale: f32,
        chunk: u32,
    ) -> Result<PrefixAttention<'a, T>> {
        Ok(match self.inner.context() {
            Some(context) => {
                let tier = tier_of(context);
                PrefixAttention::Gpu(GpuPrefix::new(context, tier, keys, bytes, softmax_scale, chunk)?)
            }
            None => PrefixAttention::Cpu(CpuPrefix::new(&self.inner, keys, one_hot(bytes)?, softmax_scale)),
        })
    }
}

/// The tier that a device is held to, or else its best tier.
fn tier_of(context: &Context) -> Tier {
    context.caps().tier().unwrap_or_else(|| context.caps().best_tier())
}

/// Keys and values of a text, ready for causal attention by chunks of queries.
#[expect(clippy::large_enum_variant, reason = "there is one of it for a text")]
pub(crate) enum PrefixAttention<'a, T> {
    Cpu(CpuPrefix<'a, T>),
    Gpu(GpuPrefix),
}

impl<T: Element> PrefixAttention<'_, T> {
    /// Causal attention of the queries at positions `chunk_start..chunk_start + len` over the keys from 0.
    /// `q` is `[1, len, heads, head_dim]`; out is `[1, len, heads, 256]` and lse `[1, len, heads, 1]`, in f32.
    pub(crate) fn attend_chunk(&self, q: &HostTensor<T>, chunk_start: u32) -> Result<AttentionOutput> {
        match self {
            Self::Cpu(prefix) => prefix.attend_chunk(q, chunk_start),
            Self::Gpu(prefix) => prefix.attend_chunk(q, chunk_start),
        }
    }
}

/// `[1, len, 1, 256]` with a single one in each row.
pub(crate) fn one_hot<T: Element>(bytes: &[u8]) -> Result<HostTensor<T>> {
    let width = BYTES as usize;
    let mut data = vec![T::default(); bytes.len() * width];
    for (row, &byte) in data.chunks_exact_mut(width).zip(bytes) {
        row[usize::from(byte)] = T::from_f32(1.0);
    }
    HostTensor::new([1, bytes.len() as u32, 1, BYTES], data)
}
