//! The trait of all that is benched and all that is tuned.

use serde::{Deserialize, Serialize};

use super::check::Verdict;
use super::clock::Elapsed;
use super::stopwatch::Stopwatch;
use super::{Counts, Rotation};
use crate::{AttentionPlan, Result, SelectionPlan};

/// Work that can be done in several ways: each is prepared, checked, and timed in turns with the others. The ways of a case are its parts, the
/// ways of a tuned problem are its tilings.
pub(crate) trait Subject {
    /// A part, a tiling.
    type Way;
    /// A way, compiled and bound.
    type Ready;
    /// The clock.
    type Watch: Stopwatch;

    /// Compiles and binds.
    fn prepare(&mut self, way: Self::Way) -> Result<Self::Ready>;
    /// Runs and compares with the oracle.
    fn check(&mut self, ready: &Self::Ready) -> Result<Verdict>;
    /// Runs `calls` times, one after the other, and waits.
    fn time(&mut self, ready: &Self::Ready, calls: u32) -> Result<Elapsed>;
    /// How it is computed.
    fn plan(&self, ready: &Self::Ready) -> Result<PartPlan>;
    /// The least that it must move and compute.
    fn counts(&self, ready: &Self::Ready) -> Counts;
    /// Seconds that the host needs to encode a call; none where nothing is encoded.
    fn encode_seconds(&mut self, ready: &Self::Ready) -> Result<Option<f64>>;
    /// The tensors that calls take.
    fn rotation(&self) -> Rotation;
    /// The clock.
    fn watch(&self) -> Self::Watch;
}

/// How a part is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartPlan {
    /// The tier of the kernels; none on the CPU.
    pub tier: Option<String>,
    /// The tile sizes of attention.
    pub tiling: Option<String>,
    /// Dispatches of a call; for a decode step their mean over a cycle. None on the CPU.
    pub dispatches: f64,
    /// Memory that the call itself needs.
    pub workspace_bytes: u64,
}

impl PartPlan {
    pub(super) const ON_CPU: Self = Self { tier: None, tiling: None, dispatches: 0.0, workspace_bytes: 0 };

    pub(crate) fn of_attention(plan: &AttentionPlan) -> Self {
        Self {
            tier: Some(plan.tier().to_string()),
            tiling: Some(match plan.tuned_at() {
                Some(at) => format!("{}, {at}", plan.tiling()),
                None => plan.tiling().to_string(),
            }),
            dispatches: plan.dispatches().len() as f64,
            workspace_bytes: plan.workspace_bytes(),
        }
    }

    /// A selection that computes all stages.
    pub(crate) fn of_selection(plan: &SelectionPlan) -> Self {
        Self {
            tier: Some(plan.tier().to_string()),
            tiling: None,
            dispatches: plan.num_dispatches(0) as f64,
            workspace_bytes: plan.samples_bytes() + plan.scratch_bytes() + plan.cache_bytes(),
        }
    }
}
