//! The errors that stop the program: one line for people, exit code 2.

use std::io;
use std::path::{Path, PathBuf};

/// Every way to fail. `Display` is the text after `error: `.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments contradict each other or ask for something that does not exist.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// A file can be read, but holds something else.
    #[error("{}: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
    /// The library's error.
    #[error(transparent)]
    Attention(#[from] wattn::Error),
    /// The model's error.
    #[error(transparent)]
    Lm(#[from] wattn::lm::LmError),
    /// The result is off by more than rounding explains.
    #[error("the check against f64 failed: error {error:.3e} exceeds the bound {bound:.3e}")]
    Check { error: f64, bound: f64 },
    /// The error that stopped the benchmarks.
    #[error(transparent)]
    Bench(#[from] wattn::bench::BenchError),
    /// The error that stopped tuning.
    #[error(transparent)]
    Tune(#[from] wattn::tune::TuneError),
    /// A benchmark's result differs from the oracle's.
    #[error("the check against f64 failed: {0}")]
    Wrong(String),
    /// The picture could not be drawn.
    #[error("drawing the picture: {0}")]
    Plot(String),
}

impl Failure {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn content(path: &Path, reason: impl ToString) -> Self {
        Self::Content { path: path.to_owned(), reason: reason.to_string() }
    }

    /// The error on a single line: names inside hostile files may carry line breaks.
    pub(crate) fn line(&self) -> String {
        self.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}
