// Family `sampling`: the queries that stand for a block. Here the last one of every stride; the last query of a block that
// is shorter than a stride. Samples past the last one repeat it.
struct SampledQueries {
    first: u32, // query of the block
    count: u32, // queries whose mean is taken
}

fn sampled_queries(q_block: u32, sample: u32) -> SampledQueries {
    let queries = queries_of_block(q_block);
    let last_of_stride = (sample + 1u) * params.stride_q - 1u;
    if last_of_stride < queries {
        return SampledQueries(last_of_stride, 1u);
    }
    let strides = queries / params.stride_q;
    if strides == 0u {
        return SampledQueries(queries - 1u, 1u);
    }
    return SampledQueries((min(sample, strides - 1u) + 1u) * params.stride_q - 1u, 1u);
}
