// Family `gather`: how the lanes that share a tile learn its keys. Here a workgroup finds them once, for all its groups.
var<workgroup> tile_keys: array<u32, TILE_KV>;

fn gather_keys(walk: Walk, tile_begin: u32, thread: Thread) {
    for (var i = group_of(thread) * LANES + lane_of(thread); i < TILE_KV; i += WORKGROUP_SIZE) {
        tile_keys[i] = walk_key(walk, tile_begin + i);
    }
    workgroupBarrier(); // orders tile_keys: those of the previous tile were read before the last values were staged
}

fn gathered_key(walk: Walk, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return tile_keys[index];
}

fn gathered_key_in_range(walk: Walk, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return tile_keys[index];
}
