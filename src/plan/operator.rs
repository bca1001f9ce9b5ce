//! Plans of operators with one kernel: a problem gives its dispatch, and this file the rest.

use super::Dispatch;
use crate::{DeviceCaps, Result, Tier};

/// A problem that one dispatch computes.
pub trait OneDispatch: Clone + core::fmt::Debug + PartialEq {
    /// The name of the operator.
    const NAME: &'static str;

    /// The dispatch for a device and a tier.
    ///
    /// # Errors
    /// The errors of the problem's `validate`; [`Error::Limit`](crate::Error::Limit) when the problem exceeds a limit of the device.
    fn dispatch(&self, caps: &DeviceCaps, tier: Tier) -> Result<Dispatch>;
}

/// The dispatch that computes a problem on a device. A plain value, like [`AttentionPlan`](crate::AttentionPlan).
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorPlan<P> {
    pub(crate) problem: P,
    pub(super) tier: Tier,
    pub(super) dispatch: Dispatch,
}

impl<P: OneDispatch> OperatorPlan<P> {
    /// Plans with the best tier of the device, or with the tier that it is [held to](DeviceCaps::with_tier).
    ///
    /// # Errors
    /// The errors of the problem's `validate`, and [`Error::Limit`](crate::Error::Limit) when the problem exceeds a limit of the device.
    ///
    /// # Cost
    /// Arithmetic only.
    pub fn new(problem: &P, caps: &DeviceCaps) -> Result<Self> {
        Self::with_tier(problem, caps, caps.tier.unwrap_or_else(|| caps.best_tier()))
    }

    /// Plans with one tier.
    ///
    /// # Errors
    /// The errors of [`OperatorPlan::new`], and [`Error::MissingFeature`](crate::Error::MissingFeature) when the device lacks the tier.
    pub fn with_tier(problem: &P, caps: &DeviceCaps, tier: Tier) -> Result<Self> {
        caps.require(tier)?;
        Ok(Self { problem: problem.clone(), tier, dispatch: problem.dispatch(caps, tier)? })
    }

    /// The problem.
    #[must_use]
    pub const fn problem(&self) -> &P {
        &self.problem
    }

    /// The tier that the kernel uses.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// The dispatch.
    #[must_use]
    pub const fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }
}

impl<P: OneDispatch> core::fmt::Display for OperatorPlan<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:<10} {:?}\ndispatch   {}", P::NAME, self.problem, self.dispatch)
    }
}

/// Checks that tensors with these numbers of 4-byte elements fit a binding.
pub(super) fn fit_bindings(caps: &DeviceCaps, shapes: &[[u32; 4]]) -> Result<()> {
    let (limit, available) = ("max_storage_buffer_binding_size", caps.max_storage_binding_bytes);
    for shape in shapes {
        let needed = shape.iter().fold(4u64, |bytes, &axis| bytes.saturating_mul(axis.into()));
        if needed > available {
            return Err(crate::Error::Limit { limit, needed, available });
        }
    }
    Ok(())
}
