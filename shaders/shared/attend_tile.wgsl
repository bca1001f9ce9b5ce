// Rows of attention: what a group of invocations works on, and where its rows are.

// MASKED stands for minus infinity, which WGSL does not promise to have. No finite score reaches it.
const LN_2 = 0.6931471805599453;

// What a row's sums come to. `sum` is that of its weights, 0 where it saw no key.
fn mean4(acc: vec4<f32>, sum: f32, spoiled: bool) -> vec4<f32> {
    return nan_if4(spoiled, select(acc / sum, vec4<f32>(), sum == 0.0));
}

// `reference` is the score, in base 2, that its weights are relative to.
fn lse_of(reference: f32, sum: f32, spoiled: bool) -> f32 {
    return nan_if(spoiled, select((reference + log2(sum)) * LN_2, LSE_EMPTY, sum == 0.0));
}

// What one group works on. `heads` numbers the sets of query heads whose rows go together: the heads of a KV head, or
// single heads where each selects keys of its own.
struct Tile {
    batch: u32,
    heads: u32,
    first_row: u32,
    end_row: u32,
    split: u32,
    slot: u32,
    thread: Thread,
}

// Which query and which head of its group a row is.
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

// Rows past the last one are computed from its q and not stored.
fn q_index(tile: Tile, place: Place) -> u32 {
    let head = tile.heads * params.group_size + place.head;
    let query = min(place.q_index, params.seq_len_q - 1u);
    return params.q_offset + tile.batch * params.q_batch + query * params.q_seq + head * params.q_head;
}

// Where the keys and the values of the tile's KV head begin.
fn first_k(tile: Tile) -> u32 {
    return params.k_offset + tile.batch * params.k_batch + tile.heads / params.heads_per_kv_head * params.k_head;
}

fn first_v(tile: Tile) -> u32 {
    return params.v_offset + tile.batch * params.v_batch + tile.heads / params.heads_per_kv_head * params.v_head;
}
