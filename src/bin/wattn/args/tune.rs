//! The options of `wattn tune`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use wattn::{AttentionProblem, AttentionShape};

use super::bench::parse_seconds;
use super::{Backend, DtypeArg, EngineArgs, MaskArgs, parse_shape};
use crate::failure::Failure;

#[derive(Args, Clone, Debug)]
pub(crate) struct TuneArgs {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Only the cases of `wattn bench --quick`, and no calls that take more than half a second
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only cases with one of these texts in their name, such as `decode/` or `131072`
    #[arg(long, value_name = "TEXT,...", value_delimiter = ',', conflicts_with = "shape", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) cases: Vec<String>,
    /// Only attention of these sizes: batch,seq_len_q,seq_len_kv,num_q_heads,num_kv_heads,head_dim,head_dim_v
    #[arg(long, value_name = "SIZES", value_parser = parse_shape)]
    shape: Option<AttentionShape>,
    /// How q, k and v of --shape are stored
    #[arg(long, value_enum, default_value_t = DtypeArg::F32, requires = "shape")]
    dtype: DtypeArg,
    #[command(flatten)]
    mask: MaskArgs,
    /// Begin nothing after this many seconds: results until then are kept, and the output lists the cases that are left
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, allow_negative_numbers = true)]
    pub(crate) seconds: Option<f64>,
    /// Seconds of timing for each candidate of a round
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value_t = 0.1, allow_negative_numbers = true)]
    pub(crate) candidate_seconds: f64,
    /// Largest number of candidates of a case
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16))]
    pub(crate) most: u16,
    /// Measure again cases that were already measured on this device
    #[arg(long)]
    pub(crate) again: bool,
    /// Measure nothing; add the tilings of this file to the user's cache folder; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "cases", "shape", "again", "no_cache"])]
    pub(crate) import: Option<PathBuf>,
    /// Write all tilings, of all devices, into this file, anew after each case; without other options write the kept tilings and measure
    /// nothing, with no GPU needed
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
}

impl TuneArgs {
    /// Whether the call only writes the kept table.
    pub(crate) fn exports_only(&self) -> bool {
        let Self { engine, quick, cases, shape, mask, seconds, again, export, .. } = self;
        let asks = *quick || !cases.is_empty() || shape.is_some() || mask.is_some() || seconds.is_some() || *again;
        let names_a_device = engine.backend != Backend::Auto || engine.adapter.is_some() || engine.no_cache;
        export.is_some() && !asks && !names_a_device
    }

    /// The problem of `--shape`, if it is given.
    pub(crate) fn problem(&self) -> Result<Option<AttentionProblem>, Failure> {
        let mask = self.mask.mask()?;
        if self.shape.is_none() && mask != wattn::Mask::Full {
            return Err(Failure::Usage("--causal and the windows are for --shape".to_owned()));
        }
        Ok(self.shape.map(|shape| AttentionProblem::new(shape, self.dtype.into()).with_mask(mask)))
    }
}
