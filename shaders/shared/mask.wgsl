// Which keys a row sees. A row is one (query, query head of the group) pair: row = q_index * group_size + head.
// Query q_index sits at position q_index + seq_len_kv - seq_len_q; it sees the keys from position - window_left to
// position + window_right.

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

// The same from the key's side: the rows that see it. Cheaper where many rows are tested, since it needs no division.
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
