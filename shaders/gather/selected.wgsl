// Family `gather`: how the lanes that share a tile learn its keys. Here a group finds them once, for all its lanes.
var<workgroup> tile_keys: array<u32, GROUPS * TILE_KV>;

fn gather_keys(walk: Walk, tile_begin: u32, thread: Thread) {
    let first = lane_of(thread) * KEYS;
    for (var c = 0u; c < KEYS; c++) {
        tile_keys[group_of(thread) * TILE_KV + first + c] = walk_key(walk, tile_begin + first + c);
    }
}

fn gathered_key(walk: Walk, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return tile_keys[group_of(thread) * TILE_KV + index];
}

fn gathered_key_in_range(walk: Walk, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return tile_keys[group_of(thread) * TILE_KV + index];
}
