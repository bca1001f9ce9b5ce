//! The modules that add sinks to rows.

use super::modules::number_module;
use crate::kernels::modules;
use crate::shader::Taken;
use crate::{DType, Sinks};

/// The modules of the dispatch that finishes rows, or of one that leaves parts of them.
pub(super) fn sink_modules(sinks: Option<Sinks>) -> Vec<Taken> {
    let dtype = match sinks {
        None => return Taken::all([&modules::SINK_NONE]),
        Some(Sinks::Zero) => DType::F32,
        Some(Sinks::Learned(dtype)) => dtype,
    };
    vec![Taken::for_tensor(Sinks::NAME, number_module(dtype)), Taken::from(&modules::SINK_LEARNED)]
}
