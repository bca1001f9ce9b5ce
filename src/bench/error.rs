//! Errors of benchmarks.

use crate::Error;

/// Everything that can go wrong besides the library's own errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// An error of the library or the device.
    #[error(transparent)]
    Library(#[from] Error),
    /// A report was written by a version of the format that is not read.
    #[error("the report has schema {found}, this version reads up to {expected}")]
    Schema {
        /// The report's version.
        found: u64,
        /// The newest version that is read.
        expected: u32,
    },
    /// A text is no report.
    #[error("no benchmark report: {0}")]
    Json(#[from] serde_json::Error),
    /// A run cannot resume from the report of another run.
    #[error("the report cannot be gone on from: its {field} is {recorded}, this run's {now}")]
    Resume {
        /// The difference.
        field: &'static str,
        /// The report's value.
        recorded: String,
        /// The value that it should have.
        now: String,
    },
    /// No case is left.
    #[error("no case has {filter:?} in its name")]
    NoCase {
        /// The requested cases.
        filter: String,
    },
    /// A kernel that measures a ceiling gave a wrong result, so its rate means nothing.
    #[error("{kernel} gave {got} where {expected} was right")]
    Ceiling {
        /// The kernel.
        kernel: &'static str,
        /// Its result.
        got: f32,
        /// The right result.
        expected: f32,
    },
}

/// `Result` with [`BenchError`].
pub type BenchResult<T> = Result<T, BenchError>;
