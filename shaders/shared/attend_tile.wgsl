// Rows of attention: the work of a group of invocations, and where its rows are in memory.

// MASKED stands for minus infinity, which WGSL does not guarantee to exist. No finite score reaches it.
const LN_2 = 0.6931471805599453;

// A row's result. `sum` is the sum of its weights, 0 where it saw no key, and `total` the same with its sink.
fn mean4(acc: vec4<f32>, sum: f32, total: f32, non_finite: bool) -> vec4<f32> {
    return nan_if4(non_finite, select(acc / total, vec4<f32>(), sum == 0.0));
}

// `reference` is the score, in base 2, that weights are relative to.
fn lse_of(reference: f32, sum: f32, non_finite: bool) -> f32 {
    return nan_if(non_finite, select((reference + log2(sum)) * LN_2, LSE_EMPTY, sum == 0.0));
}

// The work of one group. `heads` numbers the sets of query heads whose rows go together: the heads of a KV head, or single heads where
// each selects keys of its own.
struct Tile {
    batch: u32,
    heads: u32,
    first_row: u32,
    end_row: u32,
    split: u32,
    slot: u32,
    thread: Thread,
}

// The query of a row, and its head within the group.
struct Place {
    q_index: u32,
    head: u32,
}

fn place_of(row: u32) -> Place {
    return Place(row / params.group_size, row % params.group_size);
}

fn next_place(place: Place) -> Place {
    let wraps = place.head + 1u == params.group_size;
    return Place(place.q_index + select(0u, 1u, wraps), select(place.head + 1u, 0u, wraps));
}

// The query head of a row.
fn head_of(tile: Tile, place: Place) -> u32 {
    return tile.heads * params.group_size + place.head;
}

// Rows past the last one are computed with its q and not stored.
fn q_index(tile: Tile, place: Place) -> u32 {
    let head = head_of(tile, place);
    let query = min(place.q_index, params.seq_len_q - 1u);
    return params.q_offset + tile.batch * params.q_batch + query * params.q_seq + head * params.q_head;
}

// The keys and the values of the tile's KV head.
fn k_rows_of(tile: Tile) -> KeyRows {
    return rows_of_k(tile.batch, tile.heads / params.heads_per_kv_head);
}

fn v_rows_of(tile: Tile) -> KeyRows {
    return rows_of_v(tile.batch, tile.heads / params.heads_per_kv_head);
}
