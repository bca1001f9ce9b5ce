//! Baselines for selections.

use super::random::Random;
use super::{Candidates, lists};
use crate::{HostBlockLists, Result, SelectionProblem, parallel};

/// Lists of random candidates, each as long as the selection's: the result of a selection that ignores its inputs. The same seed gives the
/// same lists.
///
/// # Errors
/// The errors of [`SelectionProblem::validate`] and of key lengths, as in
/// [`SelectionInputs::validate`](crate::SelectionInputs::validate).
///
/// # Cost
/// Draws a number for every candidate of every list.
pub fn random_blocks(problem: &SelectionProblem, seq_lens_kv: Option<&[u32]>, seed: u64) -> Result<HostBlockLists> {
    problem.validate()?;
    let shape = problem.shape();
    crate::problem::validate_seq_lens(seq_lens_kv, shape)?;
    let blocks = problem.blocks();
    let indices_shape = blocks.indices_shape(shape);
    let all = lists(indices_shape);
    let draw = |(number, &(batch, _, q_block)): (usize, &(u32, u32, u32))| {
        let seq_len_kv = seq_lens_kv.map_or(shape.seq_len_kv, |lens| lens[batch as usize]);
        let candidates = Candidates::new(problem, seq_len_kv, q_block);
        let random = Random::new(seed, number as u64);
        let mut drawn: Vec<(u64, u32)> = (0..candidates.len).map(|block| (random.bits(block.into()), block)).collect();
        let count = blocks.max_blocks as usize;
        if drawn.len() > count {
            drawn.select_nth_unstable(count);
            drawn.truncate(count);
        }
        let mut list: Vec<u32> = drawn.iter().map(|&(_, block)| candidates.start + block * blocks.block_size).collect();
        list.sort_unstable();
        list
    };
    let drawn: Vec<Vec<u32>> = parallel::map(&all, |number, list| draw((number, list)));
    let mut result = HostBlockLists::empty(indices_shape);
    for (&(batch, set, q_block), list) in all.iter().zip(&drawn) {
        result.set_list(batch, set, q_block, list);
    }
    Ok(result)
}

/// Empty lists: attention to sinks and window only.
#[must_use]
pub fn no_blocks(problem: &SelectionProblem) -> HostBlockLists {
    HostBlockLists::empty(problem.blocks().indices_shape(problem.shape()))
}
