// Family `gather`: the slots of a tile's keys, for the lanes that share it. `rows` are those of k or of v: both have the same slots. Here each
// lane finds them itself, since no look-up is needed: the keys of a tile are neighbours, and `paging` looks nothing up.
fn gather_slots(walk: Walk, rows: KeyRows, tile_begin: u32, thread: Thread) {}

fn gathered_slot(walk: Walk, rows: KeyRows, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return slot_of_key(rows, tile_begin + index);
}

// Where the tile may reach past the walk's end.
fn gathered_slot_in_range(walk: Walk, rows: KeyRows, tile_begin: u32, index: u32, thread: Thread) -> u32 {
    return slot_of_key(rows, walk_key(walk, tile_begin + index));
}
