// Where the samples of query blocks lie, for kernels that score keys with them.

// MASKED stands for minus infinity, which WGSL does not guarantee to exist. No finite score reaches it.

// Samples of a query block, from a head on.
struct SamplePlace {
    batch: u32,
    head: u32,
    q_block: u32,
}

// Index of a sample in [batch, num_q_heads, num_q_blocks, num_samples]; rows are the samples of the first head, then of the next.
fn sample_at(place: SamplePlace, row: u32) -> u32 {
    let head = place.batch * params.num_q_heads + place.head + row / params.num_samples;
    return (head * params.num_q_blocks + place.q_block) * params.num_samples + row % params.num_samples;
}
