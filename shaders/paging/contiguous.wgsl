// Family `paging`: where the row of a key lies in the buffers of k and v. A key becomes a *slot*, the same for k and v, by a look-up; a slot
// becomes an offset by the strides of its tensor. Offsets and strides count vec4. Here the keys of a sequence lie side by side: a key is
// its slot, and nothing is looked up.
//
// A member with pages of PAGE keys would bind their table, keep a sequence's place in it in KeyRows, and take `batch` for the stride of pages:
// slot_of_key is table[rows.pages + key / PAGE] * PAGE + key % PAGE, and slot_row is slot / PAGE * rows.page_stride + slot % PAGE *
// rows.stride. Neighbouring keys need a look-up each then (run_row), and lanes that share a tile hand slots on (`gather`).

// Of a tensor [batch, seq_len_kv, num_kv_heads, width / 4].
struct Strides {
    offset: u32,
    batch: u32,
    seq: u32,
    head: u32,
}

// The rows of one KV head of a sequence in one tensor. The row of a key begins at `begin` plus what the functions below give, which is the
// same for all KV heads.
struct KeyRows {
    begin: u32,
    stride: u32,
}

fn key_rows_of(strides: Strides, batch: u32, kv_head: u32) -> KeyRows {
    return KeyRows(strides.offset + batch * strides.batch + kv_head * strides.head, strides.seq);
}

fn slot_of_key(rows: KeyRows, key: u32) -> u32 {
    return key;
}

fn slot_row(rows: KeyRows, slot: u32) -> u32 {
    return slot * rows.stride;
}

fn key_row(rows: KeyRows, key: u32) -> u32 {
    return slot_row(rows, slot_of_key(rows, key));
}

// The same for four keys.
fn key_row4(rows: KeyRows, keys: vec4<u32>) -> vec4<u32> {
    return keys * rows.stride;
}

// The same for the key `steps` after `first`, where the keys from `first` to `last` are neighbours: one product serves all of them. Past
// `last` some place before its row's end, since the product may wrap around.
fn run_row(rows: KeyRows, first: u32, steps: u32, last: u32) -> u32 {
    return min(first * rows.stride + steps * rows.stride, last * rows.stride);
}
