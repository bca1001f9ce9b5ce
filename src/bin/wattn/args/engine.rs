//! Where to compute, and with what.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use wattn::Tier;

use crate::failure::Failure;

/// Where to compute.
#[derive(Args, Clone, Debug)]
pub(crate) struct EngineArgs {
    /// Where to compute; `oracle` is the definition in f64, for small inputs
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,
    /// Use the first GPU whose name contains this text
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Do not read or write the user's cache folder: compiled GPU kernels, and tilings of `wattn tune`
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Plan by rules alone, the same on every device of a kind, whatever `wattn tune` has measured
    #[arg(long, conflicts_with = "tuning")]
    pub(crate) no_tune: bool,
    /// Take the tilings from this file, which `wattn tune --export` wrote, instead of from the user's cache folder
    #[arg(long, value_name = "FILE")]
    pub(crate) tuning: Option<PathBuf>,
    /// Force the GPU kernels to use these device features and no others
    #[arg(long, value_enum)]
    pub(crate) tier: Option<TierArg>,
}

impl EngineArgs {
    /// Fails for a GPU option where no GPU is used.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let on_cpu = matches!(self.backend, Backend::Cpu | Backend::Oracle);
        if on_cpu && (self.adapter.is_some() || self.tier.is_some() || self.tuning.is_some()) {
            let message = "--adapter, --tier and --tuning are for a GPU, --backend chose a CPU path";
            return Err(Failure::Usage(message.to_owned()));
        }
        Ok(())
    }
}

impl Default for EngineArgs {
    fn default() -> Self {
        Self { backend: Backend::Auto, adapter: None, no_cache: false, no_tune: false, tuning: None, tier: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// A GPU where there is one, else the CPU
    Auto,
    /// A GPU, or fail
    Gpu,
    /// The blockwise CPU path
    Cpu,
    /// Naive attention in f64
    Oracle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TierArg {
    Baseline,
    F16,
    Subgroup,
    SubgroupF16,
    /// Matrix products in hardware, for f16 tensors
    Matrix,
}

impl From<TierArg> for Tier {
    fn from(tier: TierArg) -> Self {
        match tier {
            TierArg::Baseline => Self::Baseline,
            TierArg::F16 => Self::F16,
            TierArg::Subgroup => Self::Subgroup,
            TierArg::SubgroupF16 => Self::SubgroupF16,
            TierArg::Matrix => Self::Matrix,
        }
    }
}
