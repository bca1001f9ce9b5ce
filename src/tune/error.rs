//! What stops a tuning.

use crate::Error;

/// Everything that can go wrong besides what the library itself refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// The library refused, or the device did.
    #[error(transparent)]
    Library(#[from] Error),
    /// What plans take on their own is wrong on this device: nothing on it can be trusted.
    #[error("{candidate} gives wrong results on this device: {reason}")]
    Wrong {
        /// The tier and the tiling.
        candidate: String,
        /// What is wrong.
        reason: String,
    },
    /// One call takes longer than [`Options::with_longest_call`](super::Options::with_longest_call) allows.
    #[error("a call takes {seconds:.2} s")]
    Slow {
        /// Seconds of a call with the plan without tuning.
        seconds: f64,
    },
    /// The device was lost with a candidate. Tune again on a new one, with
    /// [`Options::with_avoid`](super::Options::with_avoid) of this candidate.
    #[error("the device was lost while {candidate} was tried: {source}")]
    Lost {
        /// The tier and the tiling.
        candidate: String,
        /// What the device said.
        source: Error,
    },
    /// A text is no table of tilings.
    #[error("no table of tilings: {0}")]
    Json(#[from] serde_json::Error),
    /// A table was written by another version of the format.
    #[error("the table has schema {found}, this version reads {expected}")]
    Schema {
        /// What it says.
        found: u64,
        /// What is read.
        expected: u32,
    },
}

/// `Result` with [`TuneError`].
pub type TuneResult<T> = Result<T, TuneError>;
