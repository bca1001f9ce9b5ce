//! The options of `wattn bench`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::EngineArgs;

#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    /// Few cases, in less than three minutes on a software driver
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Only cases with one of these texts in their name, such as `decode/` or `131072`
    #[arg(long, value_name = "TEXT,...", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub(crate) cases: Vec<String>,
    /// Seconds of timing for a case [default: 5, with --quick 1.2]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, allow_negative_numbers = true)]
    pub(crate) seconds: Option<f64>,
    /// Write the report as JSON, anew after each case
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a self-contained page with tables and plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write roofline.png, length.png and crossover.png into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
    /// Go on from a report that --json wrote, and write it there unless --json gives another file
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Compare two reports: which cases are faster, slower, or within the noise
    Compare(CompareArgs),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// The report to compare from
    pub(crate) first: PathBuf,
    /// The report to compare with it
    pub(crate) second: PathBuf,
}

pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds from 0 to 3600".to_owned()),
    }
}
