// The numbers that differ from stretch to stretch of a grid: its places, and the first tile where walks are cut into parts.
struct Stretch {
    first_place: u32,
    end_place: u32,
    first_tile: u32,
}
@group(0) @binding(STRETCH_BINDING) var<uniform> stretch: Stretch;
