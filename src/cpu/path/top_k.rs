//! The best entries of rows of scores: `shaders/select_top_k.wgsl` on the CPU.

use rayon::prelude::*;

use super::select::{TopK, order};
use crate::{HostBlockLists, HostTensor, MASKED_SCORE, Mark, Result, TopKProblem};

/// The best entries of each row of scores. `marks`: one for each score, where the problem has them.
///
/// # Errors
/// The errors of [`TopKProblem::validate`]; [`Error::Shape`](crate::Error), [`Error::Length`](crate::Error) or
/// [`Error::Argument`](crate::Error) where scores or marks do not fit the problem.
pub fn top_k(problem: &TopKProblem, scores: &HostTensor, marks: Option<&[Mark]>) -> Result<HostBlockLists> {
    problem.validate_inputs(scores, marks)?;
    let n = problem.shape[3] as usize;
    let rows = problem.num_rows() as usize; // fewer than 2^32 entries in all: validated
    let found: Vec<Vec<u32>> = (0..rows)
        .into_par_iter()
        .map_init(TopK::default, |top_k, row| {
            let scores = &scores.data()[row * n..][..n];
            let marks = marks.map(|marks| &marks[row * n..][..n]);
            let key = |index: usize| key(problem, scores, marks, end(scores), index);
            let best = top_k.indices_by(n, key, problem.k as usize);
            best.filter(|&index| key(index) > 0).map(|index| index as u32 * problem.block_size).collect()
        })
        .collect();
    let [_, num_sets, num_q_blocks, _] = problem.shape;
    let mut lists = HostBlockLists::empty(problem.lists_shape());
    for (row, list) in (0..).zip(&found) {
        lists.set_list(row / num_q_blocks / num_sets, row / num_q_blocks % num_sets, row % num_q_blocks, list);
    }
    Ok(lists)
}

/// One past the last entry that exists.
fn end(scores: &[f32]) -> usize {
    scores.iter().rposition(|&score| score != MASKED_SCORE).map_or(0, |last| last + 1)
}

/// The integer that an entry ranks by: 0 if it is not taken, the largest of all if it is forced.
fn key(problem: &TopKProblem, scores: &[f32], marks: Option<&[Mark]>, end: usize, index: usize) -> u32 {
    let (score, mark) = (scores[index], marks.map_or(Mark::Free, |marks| marks[index]));
    if score == MASKED_SCORE || mark == Mark::Forbidden {
        return 0;
    }
    let at_an_end = index < problem.forced_first as usize || index + problem.forced_last as usize >= end;
    if mark == Mark::Forced || at_an_end {
        return u32::MAX;
    }
    if score > MASKED_SCORE { order(score) } else { 0 }
}
