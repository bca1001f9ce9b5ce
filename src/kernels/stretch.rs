//! What is different in each stretch of a grid: `shaders/shared/stretch.wgsl`.

use super::params;

params! {
    /// The places of a stretch, and of walks that are cut into parts the first tile.
    StretchRecord {
        first_place: u32,
        end_place: u32,
        first_tile: u32,
    }
}
