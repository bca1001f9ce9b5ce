// What is different in each stretch of a grid: its places, and of walks that are cut into parts the first tile.
struct Stretch {
    first_place: u32,
    end_place: u32,
    first_tile: u32,
}
@group(0) @binding(STRETCH_BINDING) var<uniform> stretch: Stretch;
