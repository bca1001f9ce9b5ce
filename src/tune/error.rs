//! Errors of tuning.

use crate::Error;

/// Everything that can go wrong besides the library's own errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// An error of the library or the device.
    #[error(transparent)]
    Library(#[from] Error),
    /// The plan without tuning gives wrong results on this device, so nothing on it can be trusted.
    #[error("{candidate} gives wrong results on this device: {reason}")]
    Wrong {
        /// The tier and the tiling.
        candidate: String,
        /// The fault.
        reason: String,
    },
    /// One call takes longer than [`Options::with_longest_call`](super::Options::with_longest_call) allows.
    #[error("a call takes {seconds:.2} s")]
    Slow {
        /// Seconds of a call with the plan without tuning.
        seconds: f64,
    },
    /// The device was lost while a candidate ran. Tune again on a new one, with
    /// [`Options::with_avoid`](super::Options::with_avoid) of this candidate.
    #[error("the device was lost while {candidate} was tried: {source}")]
    Lost {
        /// The tier and the tiling.
        candidate: String,
        /// The device's message.
        source: Error,
    },
    /// A text is no table of tilings.
    #[error("no table of tilings: {0}")]
    Json(#[from] serde_json::Error),
    /// A table has another version of the format.
    #[error("the table has schema {found}, this version reads {expected}")]
    Schema {
        /// The table's version.
        found: u64,
        /// The supported version.
        expected: u32,
    },
}

/// `Result` with [`TuneError`].
pub type TuneResult<T> = Result<T, TuneError>;
