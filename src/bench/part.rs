//! The trait that runs the parts of a case, on the CPU or on a device.

use serde::{Deserialize, Serialize};

use super::clock::Elapsed;
use super::{Part, Rotation};
use crate::{AttentionOutput, HostBlockLists, Result};

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

/// The calls of a case on the CPU or on a device.
pub(super) trait Run {
    /// Runs a part `calls` times, one after the other, and waits.
    fn run(&mut self, part: Part, calls: u32) -> Result<Elapsed>;
    /// The last result of attention.
    fn output(&mut self, part: Part) -> Result<AttentionOutput>;
    /// The last selected lists.
    fn blocks(&mut self) -> Result<HostBlockLists>;
    fn plan(&self, part: Part) -> Result<PartPlan>;
    /// Seconds that the host needs to encode a call; none where nothing is encoded.
    fn encode_seconds(&mut self, part: Part) -> Result<Option<f64>>;
    /// The tensors that calls take.
    fn rotation(&self) -> Rotation;
}
