//! What differs from one stretch of a grid to the next: `shaders/shared/stretch.wgsl`.

use super::params;

params! {
    /// The first place of a stretch, the place after its last, and the first tile of this part where walks are cut.
    StretchRecord {
        first_place: u32,
        end_place: u32,
        first_tile: u32,
    }
}
