// Family `walk`: the keys that the rows of a workgroup go through, tile by tile. Here the keys of the listed blocks, then the sinks, then
// the window; for the first positions, all keys.
//
// A row is one (query, query head of the set) pair: row = q_index * group_size + head. Query q_index sits at position
// p = q_index + seq_len_kv - seq_len_q. A key u <= p counts once: as a key of the window if p - u < window_size, else as a sink if
// u < sink_size, else as a key of a listed block. Without CAUSAL every query sees the keys of its blocks.
@group(0) @binding(BLOCK_INDICES_BINDING) var<storage, read> block_indices: array<u32>; // [batch, num_sets, num_q_blocks, max_blocks]
@group(0) @binding(BLOCK_COUNTS_BINDING)  var<storage, read> block_counts: array<u32>;  // [batch, num_sets, num_q_blocks]

// Larger than every position, and small enough that its sum with a position fits.
const ALL_KEYS = 1 << 30;

struct Walk {
    // Places of the walk: [0, listed_end) are keys of blocks, [.., sinks_end) sinks, [.., end of the walk) the window.
    begin: u32,
    end: u32,
    listed_end: u32,
    sinks_end: u32,
    window_begin: u32,
    window_size: i32,
    // Where the list begins in block_indices.
    list: u32,
    seq_len_kv: u32,
    // Positions of the first and the last query of the tile.
    p_min: i32,
    p_max: i32,
}

// The rows that see a key.
struct RowRange {
    begin: u32,
    end: u32,
}

// A tile of rows lies within one query block.
fn rows_of_workgroup(place: WorkgroupPlace) -> RowTile {
    let row_tile = row_tile_of(place);
    let q_block = row_tile / params.tiles_per_q_block;
    let rows_per_q_block = params.block_size_q * params.group_size;
    let begin = q_block * rows_per_q_block + row_tile % params.tiles_per_q_block * TILE_Q;
    return RowTile(begin, min((q_block + 1u) * rows_per_q_block, params.num_rows));
}

fn walk_of(place: WorkgroupPlace, rows: RowTile) -> Walk {
    let seq_len_kv = seq_len_kv_of(place.batch);
    let offset = i32(seq_len_kv) - i32(params.seq_len_q);
    let p_min = i32(rows.begin / params.group_size) + offset;
    let p_max = i32((min(rows.begin + TILE_Q, rows.end) - 1u) / params.group_size) + offset;
    let p_block_end = i32((rows.end - 1u) / params.group_size) + offset;
    let q_block = rows.begin / (params.block_size_q * params.group_size);
    let num_q_blocks = (params.seq_len_q + params.block_size_q - 1u) / params.block_size_q;
    let set_index = min(place.heads, params.num_sets - 1u);
    let list = (place.batch * params.num_sets + set_index) * num_q_blocks + q_block;

    let dense = params.dense_below > 0 && p_block_end < params.dense_below;
    let window_size = select(params.window_size, ALL_KEYS, dense);
    var listed = 0u;
    if !dense {
        listed = min(block_counts[params.counts_offset + list], params.max_blocks) * BLOCK_SIZE;
    }
    var num_sinks = 0;
    var window_begin = 0;
    var window_end = 0;
    if CAUSAL {
        // Sinks that some row sees outside its window, and the keys in any row's window.
        num_sinks = clamp(p_max + 1 - window_size, 0, params.sink_size);
        window_end = max(p_max + 1, 0);
        window_begin = clamp(p_min + 1 - window_size, 0, window_end);
        if p_max < 0 {
            listed = 0u;
        }
    } else if dense {
        window_end = i32(seq_len_kv);
    }
    if seq_len_kv == 0u {
        listed = 0u;
    }
    let sinks_end = listed + u32(num_sinks);
    let end = sinks_end + u32(window_end - window_begin);
    let begins_at = params.indices_offset + list * params.max_blocks;
    return Walk(0u, end, listed, sinks_end, u32(window_begin), window_size, begins_at, seq_len_kv, p_min, p_max);
}

// A key of a listed block. It lies past the sequence where the block does, or where a list is invalid.
fn listed_key(walk: Walk, at: u32) -> u32 {
    return min(block_indices[walk.list + at / BLOCK_SIZE], walk.seq_len_kv) + at % BLOCK_SIZE;
}

// The key at a place of the walk, within the sequence; walk_rows masks keys that do not count.
fn walk_key(walk: Walk, at: u32) -> u32 {
    let inside = min(at, walk.end - 1u);
    if inside < walk.listed_end {
        return min(listed_key(walk, inside), walk.seq_len_kv - 1u);
    }
    return select(walk.window_begin + inside - walk.sinks_end, inside - walk.listed_end, inside < walk.sinks_end);
}

// Whether a place of the walk is its key.
const WALK_IS_RUN = false;

// Tiles are *empty*, *partial* or *full*. No row sees a key of an empty one: they are passed over. The first tile from a place on that is
// not empty, past the walk's end where there is none. Here none is empty, since a walk has only keys that some row may see.
fn next_tile(walk: Walk, at: u32) -> u32 {
    return at;
}

// Whether a tile is full: all rows see all its keys, so that it needs no mask.
fn walk_is_full(walk: Walk, tile_begin: u32) -> bool {
    let last = tile_begin + TILE_KV - 1u;
    if last < walk.listed_end {
        // Lists ascend.
        let last_key = listed_key(walk, last);
        let far = i32(last_key) + walk.window_size <= walk.p_min && listed_key(walk, tile_begin) >= u32(params.sink_size);
        return last_key < walk.seq_len_kv && (far || !CAUSAL);
    }
    if tile_begin >= walk.listed_end && last < walk.sinks_end {
        return i32(last - walk.listed_end) + walk.window_size <= walk.p_min;
    }
    if tile_begin >= walk.sinks_end && last < walk.end {
        let first_key = i32(walk.window_begin + tile_begin - walk.sinks_end);
        return !CAUSAL || (first_key + walk.window_size > walk.p_max && first_key + i32(TILE_KV) - 1 <= walk.p_min);
    }
    return false;
}

// The rows that see the key at a place of the walk.
fn walk_rows(walk: Walk, at: u32) -> RowRange {
    var key: u32;
    var counts = at < walk.end;
    if at < walk.listed_end {
        key = listed_key(walk, at);
        counts = key < walk.seq_len_kv && (key >= u32(params.sink_size) || !CAUSAL);
    } else {
        key = walk_key(walk, at);
    }
    if !counts {
        return RowRange(0u, 0u);
    }
    if !CAUSAL {
        return RowRange(0u, params.num_rows);
    }
    let queries = i32(params.seq_len_q);
    let q_index = i32(key) - i32(walk.seq_len_kv) + queries; // of the query that sits on the key
    // Positions at which the key leaves the window.
    let leaves = clamp(q_index + walk.window_size, 0, queries);
    if at < walk.sinks_end {
        return RowRange(u32(leaves) * params.group_size, params.num_rows);
    }
    return RowRange(u32(clamp(q_index, 0, queries)) * params.group_size, u32(leaves) * params.group_size);
}
