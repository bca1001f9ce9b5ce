// Which keys a row sees. A row is one (query, query head of the group) pair: row = q_index * GROUP_SIZE + head.
// Query q_index sits at position q_index + seq_len_kv - SEQ_LEN_Q; it sees the keys from position - window_left to
// position + window_right.

struct KeyRange {
    begin: u32,
    end: u32,
}

fn visible_keys(row: u32, seq_len_kv: u32) -> KeyRange {
    let length = i32(seq_len_kv);
    let position = i32(row / GROUP_SIZE) + length - i32(params.seq_len_q);
    let begin = clamp(position - params.window_left, 0, length);
    let end = clamp(position + params.window_right + 1, begin, length);
    return KeyRange(u32(begin), u32(end));
}
