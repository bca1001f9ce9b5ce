// Family `gather`: the slots of a tile's keys, for the lanes that share it. Here a group finds them once, for all its lanes.
var<workgroup> tile_slots: array<u32, GROUPS * TILE_KV>;

fn gather_slots(walk: Walk, rows: KeyRows, tile_begin: u32, thread: Thread) {
    let first = lane_of(thread) * KEYS;
    for (var c = 0u; c < KEYS; c++) {
        tile_slots[group_of(thread) * TILE_KV + first + c] = slot_of_key(rows, walk_key(walk, tile_begin + first + c));
    }
}

fn gathered_slot(walk: Walk, rows: KeyRows, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return tile_slots[group_of(thread) * TILE_KV + index];
}

fn gathered_slot_in_range(walk: Walk, rows: KeyRows, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return tile_slots[group_of(thread) * TILE_KV + index];
}
