// Family `gather`: how the lanes that share a tile learn its keys. Here each lane computes them.
fn gather_keys(walk: Walk, tile_begin: u32, thread: Thread) {}

fn gathered_key(walk: Walk, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return tile_begin + index;
}

fn gathered_key_in_range(walk: Walk, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return min(tile_begin + index, walk.end - 1u);
}
