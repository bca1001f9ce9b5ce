//! Summaries of blocks of keys: `shaders/pool_blocks.wgsl` on the CPU.

use rayon::prelude::*;

use crate::{Element, HostTensor, PoolProblem, Pooling, Result};

/// Summaries of blocks of keys. `seq_lens`: the number of keys of each sequence that count; `None`: all of them.
///
/// # Errors
/// The errors of [`PoolProblem::validate`]; [`Error::DType`](crate::Error::DType), [`Error::Shape`](crate::Error::Shape),
/// [`Error::Length`](crate::Error::Length) or [`Error::Invalid`](crate::Error::Invalid) where a tensor does not fit the problem.
pub fn pool<T: Element>(problem: &PoolProblem, k: &HostTensor<T>, seq_lens: Option<&[u32]>) -> Result<HostTensor> {
    problem.validate_inputs(k, seq_lens)?;
    let [_, _, heads, dim] = problem.shape.map(|axis| axis as usize);
    let shape = problem.summaries_shape();
    let mut summaries = HostTensor::zeros(shape);
    let num_blocks = shape[1] as usize;
    let block = heads * shape[3] as usize;
    summaries.data_mut().par_chunks_mut(block.max(1)).enumerate().for_each(|(index, summaries)| {
        let (batch, block) = (index / num_blocks, index % num_blocks);
        let seq_len = seq_lens.map_or(problem.shape[1], |lens| lens[batch]) as usize;
        let first = block * problem.block_size as usize;
        let keys = first..seq_len.min(first + problem.block_size as usize);
        for (head, summary) in summaries.chunks_exact_mut(shape[3] as usize).enumerate() {
            for key in keys.clone() {
                absorb(problem.pooling, k.row(batch, key, head), summary, key == first);
            }
            if problem.pooling == Pooling::Mean && !keys.is_empty() {
                summary[..dim].iter_mut().for_each(|sum| *sum /= keys.len() as f32);
            }
        }
    });
    Ok(summaries)
}

fn absorb<T: Element>(pooling: Pooling, key: &[T], summary: &mut [f32], is_first: bool) {
    // NaN stays NaN, and replaces a number.
    let least = |old: f32, new: f32| if new < old || new.is_nan() || is_first { new } else { old };
    let largest = |old: f32, new: f32| if new > old || new.is_nan() || is_first { new } else { old };
    let (low, high) = summary.split_at_mut(key.len());
    for (channel, value) in key.iter().enumerate() {
        let value = value.to_f32();
        match pooling {
            Pooling::Mean => low[channel] += value,
            Pooling::Max => low[channel] = largest(low[channel], value),
            Pooling::Min => low[channel] = least(low[channel], value),
            Pooling::MinMax => {
                low[channel] = least(low[channel], value);
                high[channel] = largest(high[channel], value);
            }
        }
    }
}
