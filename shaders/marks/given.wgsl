// Family `marks`: the caller's instruction for an entry. Here a word for each entry of each row.
@group(0) @binding(MARKS_BINDING) var<storage, read> marks: array<u32>; // [batch, num_sets, num_q_blocks, num_entries]

fn mark_of(i: u32) -> u32 {
    return marks[params.marks_offset + row * params.num_entries + i];
}
