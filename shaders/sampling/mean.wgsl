// Family `sampling`: the queries that stand for a block. Here means of neighbouring queries; the last mean may be of fewer.
// Samples past the last one repeat it.
struct SampledQueries {
    first: u32, // query of the block
    count: u32, // queries whose mean is taken
}

fn sampled_queries(q_block: u32, sample: u32) -> SampledQueries {
    let queries = queries_of_block(q_block);
    let last = (queries + params.stride_q - 1u) / params.stride_q - 1u;
    let first = min(sample, last) * params.stride_q;
    return SampledQueries(first, min(params.stride_q, queries - first));
}
