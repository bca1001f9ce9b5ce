// Where the samples of query blocks lie, for kernels that score keys with them.

// MASKED stands for minus infinity, which WGSL does not promise to have. No finite score reaches it.

// Samples of a query block, from those of a head on.
struct SamplePlace {
    batch: u32,
    head: u32,
    q_block: u32,
}

// Where a sample is, of [batch, num_q_heads, num_q_blocks, num_samples]; rows are the samples of the first head, then those
// of the next one.
fn sample_at(place: SamplePlace, row: u32) -> u32 {
    let head = place.batch * params.num_q_heads + place.head + row / params.num_samples;
    return (head * params.num_q_blocks + place.q_block) * params.num_samples + row % params.num_samples;
}
