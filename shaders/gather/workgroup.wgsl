// Family `gather`: the slots of a tile's keys, for the lanes that share it. Here a workgroup finds them once, for all its groups.
var<workgroup> tile_slots: array<u32, TILE_KV>;

fn gather_slots(walk: Walk, rows: KeyRows, tile_begin: u32, thread: Thread) {
    for (var i = group_of(thread) * LANES + lane_of(thread); i < TILE_KV; i += WORKGROUP_SIZE) {
        tile_slots[i] = slot_of_key(rows, walk_key(walk, tile_begin + i));
    }
    workgroupBarrier(); // orders tile_slots: those of the previous tile were read before the last values were staged
}

fn gathered_slot(walk: Walk, rows: KeyRows, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return tile_slots[index];
}

fn gathered_slot_in_range(walk: Walk, rows: KeyRows, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return tile_slots[index];
}
