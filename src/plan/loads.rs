//! How a plan's kernels read keys from memory.

use super::{AttentionPlan, SelectionPlan, Sharing};

/// How the invocations of a workgroup read k, which decides the share of the memory's rate that they reach. Memory is read in sectors,
/// 32 bytes on most GPUs, so short runs waste some of it; and its latency is long, so many loads must be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loads {
    /// Bytes that an invocation reads with one load, or with several neighbouring ones.
    pub bytes: u32,
    /// Contiguous bytes that neighbouring invocations read together.
    pub run_bytes: u32,
    /// Loads that an invocation has in flight.
    pub in_flight: u32,
}

impl Loads {
    /// Loads of lanes that share the rows of `keys` keys at a time, 16 bytes each.
    fn of_shared_rows(row_bytes: u32, lanes: u32, keys: u32) -> Self {
        let run_bytes = 16 * lanes;
        Self { bytes: 16, run_bytes: row_bytes.min(run_bytes), in_flight: keys * row_bytes.div_ceil(run_bytes) }
    }
}

impl AttentionPlan {
    /// How the attending kernel reads k.
    #[must_use]
    pub fn loads(&self) -> Loads {
        let specialization = &self.attending().specialization;
        let constant = |name| specialization.constant(name).unwrap_or(1);
        // 2 or 4.
        let vec4 = 4 * self.problem.dtype.size_bytes() as u32;
        let row = constant("HEAD_DIM4") * vec4;
        match (self.tier.matrix(), self.tiling.sharing) {
            // Consecutive invocations read consecutive columns of a tile.
            (true, _) => Loads { bytes: vec4, run_bytes: row, in_flight: constant("K_EACH") },
            // Each lane reads keys of its own from end to end.
            (false, Sharing::Keys | Sharing::Rows) => {
                Loads { bytes: vec4, run_bytes: vec4, in_flight: self.tiling.keys }
            }
            // Consecutive invocations read consecutive columns of a slice.
            (false, Sharing::Tiles) => {
                Loads { bytes: vec4, run_bytes: row.min(constant("SLICE4") * vec4), in_flight: constant("K_EACH") }
            }
            (false, Sharing::Columns) => Loads::of_shared_rows(row, self.tiling.lanes, self.tiling.keys),
        }
    }
}

impl SelectionPlan {
    /// How the kernels that score keys read k.
    #[must_use]
    pub fn loads(&self) -> Loads {
        let vec4 = 4 * self.problem.dtype.size_bytes() as u32;
        let row = self.problem.shape.head_dim / 4 * vec4;
        if self.matrix.is_some() {
            // Consecutive invocations read consecutive columns of a tile.
            return Loads { bytes: vec4, run_bytes: row, in_flight: 1 };
        }
        match self.tiling.sharing {
            Sharing::Keys | Sharing::Rows | Sharing::Tiles => Loads { bytes: vec4, run_bytes: vec4, in_flight: 4 },
            Sharing::Columns if self.searches_by_rows() => {
                let run_bytes = vec4 * self.tiling.lanes;
                let in_flight = 4 * row.div_ceil(run_bytes);
                Loads { bytes: vec4, run_bytes: row.min(run_bytes), in_flight }
            }
            Sharing::Columns => Loads::of_shared_rows(row, self.tiling.lanes, 4),
        }
    }
}

impl core::fmt::Display for Loads {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { bytes, run_bytes, in_flight } = self;
        write!(f, "{bytes} bytes of k an invocation, in runs of {run_bytes}, {in_flight} under way")
    }
}
