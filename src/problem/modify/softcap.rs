//! Soft capping of scores.

use crate::{Error, Result};

/// `cap * tanh(score / cap)`: scores stay between -cap and cap (Gemma 2; Grok). Its order among selections' scores does not change, since
/// it is monotone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Softcap {
    cap: f32,
}

impl Softcap {
    /// The largest magnitude of a capped score, above 0.
    #[must_use]
    pub const fn new(cap: f32) -> Self {
        Self { cap }
    }

    /// The largest magnitude of a capped score.
    #[must_use]
    pub const fn cap(&self) -> f32 {
        self.cap
    }

    pub(super) fn validate(&self) -> Result<()> {
        // The inverse must be a finite number of full precision as well.
        if self.cap >= Self::LEAST && self.cap <= Self::MOST {
            return Ok(());
        }
        Err(Error::Number { argument: "softcap", value: self.cap.into(), rule: "must be between 1e-30 and 1e30" })
    }

    const LEAST: f32 = 1e-30;
    const MOST: f32 = 1e30;
}

impl core::fmt::Display for Softcap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "softcap {}", self.cap)
    }
}
