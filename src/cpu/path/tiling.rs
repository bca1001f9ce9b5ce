//! Tile sizes of the CPU path.

use crate::{Error, Result};

/// Tile sizes for [`attend_with_tiling`](super::attend_with_tiling). They change only the speed and the last bits of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CpuTiling {
    /// Query rows of a tile, counted over the query heads of one KV head.
    pub tile_q: u32,
    /// Keys of a tile.
    pub tile_kv: u32,
    /// A task with fewer keys is not worth its overhead.
    pub split_kv: u32,
    /// With up to this many query rows for each KV head, k and v are streamed once for all heads.
    pub stream_rows: u32,
}

crate::setters::setters!(CpuTiling {
    with_tile_q(tile_q: u32)
    with_tile_kv(tile_kv: u32)
    with_split_kv(split_kv: u32)
    with_stream_rows(stream_rows: u32)
});

impl CpuTiling {
    /// Limit on the parts that the keys of a sequence are split into. A constant, so that the bits of the result depend neither on the
    /// number of threads nor on the batch; it also bounds the memory of partial results.
    pub(super) const MAX_SPLITS: usize = 64;

    pub(super) fn validate(&self) -> Result<()> {
        for (field, value) in [("tile_q", self.tile_q), ("tile_kv", self.tile_kv), ("split_kv", self.split_kv)] {
            if value == 0 {
                return Err(Error::Invalid { field, value: 0, rule: "must be at least 1" });
            }
        }
        Ok(())
    }
}

impl CpuTiling {
    /// The fastest sizes with 48 KiB of L1 and 1 MiB of L2 cache per core: the scores of a tile fit L1, and `tile_q` is a multiple of
    /// the lanes of every vector.
    #[must_use]
    pub const fn new() -> Self {
        Self { tile_q: 64, tile_kv: 128, split_kv: 512, stream_rows: 4 }
    }
}

impl Default for CpuTiling {
    fn default() -> Self {
        Self::new()
    }
}
