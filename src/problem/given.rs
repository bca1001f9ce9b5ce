//! Arguments that some problems take.

use crate::{Error, Result};

/// An argument that is given exactly when the problem takes it.
pub(crate) fn exactly_when<T>(argument: &'static str, given: Option<T>, taken: bool) -> Result<Option<T>> {
    match (&given, taken) {
        (Some(_), false) => Err(Error::Argument { argument, rule: "is not part of the problem" }),
        (None, true) => Err(Error::Argument { argument, rule: "is required by the problem" }),
        (Some(_), true) | (None, false) => Ok(given),
    }
}
