//! CPU twin of `sample_queries.wgsl`.

use core::ops::Range;

use crate::plan::Samples;
use crate::{Element, QuerySampling, Result, SelectionInputs, SelectionPlan};

/// CPU twin of the kernel `sample_queries`: for each stride that the plan samples with, in the plan's order,
/// `[batch, num_q_heads, num_q_blocks, num_samples, head_dim]`.
///
/// # Errors
/// The errors of [`SelectionInputs::validate`].
pub fn sample_queries<T: Element>(plan: &SelectionPlan, inputs: &SelectionInputs<'_, T>) -> Result<Vec<Vec<f32>>> {
    inputs.validate(plan.problem())?;
    let (shape, scale) = (plan.problem().shape(), plan.sample_scale());
    let make = |samples: &Samples| {
        let mut made = Vec::new();
        for batch in 0..shape.batch_size as usize {
            for head in 0..shape.num_q_heads as usize {
                for q_block in 0..plan.num_q_blocks() {
                    for sample in 0..samples.num_samples {
                        let queries = sampled_queries(plan, samples, q_block, sample);
                        let count = queries.len() as f32;
                        for d in 0..shape.head_dim as usize {
                            let mut sum = 0.0f32;
                            for query in queries.clone() {
                                sum += inputs.q.row(batch, query as usize, head)[d].to_f32();
                            }
                            made.push(sum / count * scale);
                        }
                    }
                }
            }
        }
        made
    };
    Ok(plan.samples.iter().map(make).collect())
}

/// The queries whose mean is a sample.
pub(super) fn sampled_queries(plan: &SelectionPlan, samples: &Samples, q_block: u32, sample: u32) -> Range<u32> {
    let block_size_q = plan.problem().blocks().block_size_q;
    let begin = q_block * block_size_q;
    let queries = (plan.problem().shape().seq_len_q - begin).min(block_size_q);
    let stride = samples.stride_q;
    match plan.problem().method().selector().sampling(0) {
        QuerySampling::Stride(_) => {
            let strides = queries / stride;
            let query = if strides == 0 { queries - 1 } else { (sample.min(strides - 1) + 1) * stride - 1 };
            begin + query..begin + query + 1
        }
        QuerySampling::Mean(_) => {
            let first = sample.min(queries.div_ceil(stride) - 1) * stride;
            begin + first..begin + queries.min(first + stride)
        }
    }
}
