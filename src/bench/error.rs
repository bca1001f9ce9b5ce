//! What stops a benchmark.

use crate::Error;

/// Everything that can go wrong besides what the library itself refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The library refused, or the device did.
    #[error(transparent)]
    Library(#[from] Error),
    /// A report was written by a version of the format that is not read.
    #[error("the report has schema {found}, this version reads up to {expected}")]
    Schema {
        /// What it says.
        found: u64,
        /// The newest that is read.
        expected: u32,
    },
    /// A text is no report.
    #[error("no benchmark report: {0}")]
    Json(#[from] serde_json::Error),
    /// A run cannot go on from a report of another one.
    #[error("the report cannot be gone on from: its {field} is {recorded}, this run's {now}")]
    Resume {
        /// What differs.
        field: &'static str,
        /// What the report says.
        recorded: String,
        /// What it would have to say.
        now: String,
    },
    /// No case is left.
    #[error("no case has {filter:?} in its name")]
    NoCase {
        /// What was asked for.
        filter: String,
    },
    /// A kernel that measures a ceiling gave a wrong result, so that its rate means nothing.
    #[error("{kernel} gave {got} where {expected} was right")]
    Ceiling {
        /// The kernel.
        kernel: &'static str,
        /// Its result.
        got: f32,
        /// The right one.
        expected: f32,
    },
}

/// `Result` with [`BenchError`].
pub type BenchResult<T> = Result<T, BenchError>;
