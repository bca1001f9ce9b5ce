// Family `walk`: the keys that the rows of a workgroup go through, tile by tile. Here all keys that any row sees.
//
// A row is one (query, query head of the group) pair: row = q_index * group_size + head. Query q_index sits at position
// q_index + seq_len_kv - seq_len_q; it sees the keys from position - window_left to position + window_right.

struct KeyRange {
    begin: u32,
    end: u32,
}

fn visible_keys(row: u32, seq_len_kv: u32) -> KeyRange {
    let length = i32(seq_len_kv);
    let position = i32(row / params.group_size) + length - i32(params.seq_len_q);
    let begin = clamp(position - params.window_left, 0, length);
    let end = clamp(position + params.window_right + 1, begin, length);
    return KeyRange(u32(begin), u32(end));
}

// The same from the key's side: the rows that see it. Cheaper for many rows, since it needs no division.
struct RowRange {
    begin: u32,
    end: u32,
}

fn seeing_rows(key: u32, seq_len_kv: u32) -> RowRange {
    let queries = i32(params.seq_len_q);
    let q_index = i32(key) - i32(seq_len_kv) + queries; // of the query that sits on the key
    let begin = clamp(q_index - params.window_right, 0, queries);
    let end = clamp(q_index + params.window_left + 1, begin, queries);
    return RowRange(u32(begin) * params.group_size, u32(end) * params.group_size);
}

struct Walk {
    // The keys of the walk.
    begin: u32,
    end: u32,
    // The keys that all rows see.
    shared_begin: u32,
    shared_end: u32,
    seq_len_kv: u32,
}

fn rows_of_workgroup(place: WorkgroupPlace) -> RowTile {
    let begin = row_tile_of(place) * TILE_Q;
    return RowTile(begin, params.num_rows);
}

fn walk_of(place: WorkgroupPlace, rows: RowTile) -> Walk {
    let seq_len_kv = seq_len_kv_of(place.batch);
    // Both borders of a row's range move up with the row, so the first and the last row bound all others.
    let first = visible_keys(rows.begin, seq_len_kv);
    let last = visible_keys(min(rows.begin + TILE_Q, rows.end) - 1u, seq_len_kv);
    return Walk(first.begin, last.end, last.begin, first.end, seq_len_kv);
}

// The key at a place of the walk; past its end the last key.
fn walk_key(walk: Walk, at: u32) -> u32 {
    return min(at, walk.end - 1u);
}

// Whether a place of the walk is its key, so that neighbouring places have neighbouring keys.
const WALK_IS_RUN = true;

// Tiles are *empty*, *partial* or *full*. No row sees a key of an empty one: they are passed over. The first tile from a place on that is
// not empty, past the walk's end where there is none. Here none is empty, since a walk has only keys that some row sees.
fn next_tile(walk: Walk, at: u32) -> u32 {
    return at;
}

// Whether a tile is full: all rows see all its keys, so that it needs no mask.
fn walk_is_full(walk: Walk, tile_begin: u32) -> bool {
    return tile_begin >= walk.shared_begin && tile_begin + TILE_KV <= walk.shared_end;
}

// The rows that see the key at a place of the walk.
fn walk_rows(walk: Walk, at: u32) -> RowRange {
    var rows = seeing_rows(at, walk.seq_len_kv);
    rows.end = select(rows.begin, rows.end, at < walk.end);
    return rows;
}
