//! Which keys a query sees: options of several commands.

use clap::Args;
use wattn::Mask;

use crate::failure::Failure;

/// Which keys a query sees.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct MaskArgs {
    /// Hide the keys after the query's own position
    #[arg(long)]
    pub(crate) causal: bool,
    /// Show only keys from N before the query's position
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) window_left: Option<u32>,
    /// Show only keys up to N after the query's position
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) window_right: Option<u32>,
    /// Put the first query on key N, and hide the keys after each query's own: for keys that continue after the last query
    #[arg(long, value_name = "N", conflicts_with_all = ["causal", "window_left", "window_right"])]
    pub(crate) causal_at: Option<u32>,
}

impl MaskArgs {
    /// Whether any option was given.
    pub(crate) const fn is_some(&self) -> bool {
        self.causal || self.window_left.is_some() || self.window_right.is_some() || self.causal_at.is_some()
    }

    pub(crate) fn mask(&self) -> Result<Mask, Failure> {
        if let Some(first) = self.causal_at {
            return Ok(Mask::causal_at(first));
        }
        let right = match (self.causal, self.window_right) {
            (true, Some(right)) if right > 0 => {
                let message = format!("--causal hides every later key, --window-right {right} would show some");
                return Err(Failure::Usage(message));
            }
            (true, _) => Some(0),
            (false, right) => right,
        };
        Ok(match (self.window_left, right) {
            (None, None) => Mask::Full,
            (None, Some(0)) => Mask::Causal,
            (left, right) => Mask::Window { left, right },
        })
    }
}
