//! Products with weights.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::lm::Matrix;

/// Outputs of one task: with 4096 inputs, two MiB of widened weights.
const PANEL: usize = 128;

/// `x W^T + bias` for every row of `x`, `[tokens, rows]`.
///
/// The result has the same bits for any number of threads.
pub fn project_tokens(x: &[f32], weight: &Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let (rows, cols) = (weight.rows(), weight.cols());
    let tokens = x.len() / cols;
    let panel = |first: usize| {
        let size = PANEL.min(rows - first);
        let mut wide = vec![0.0; size * cols];
        weight.elements().widen(first * cols, &mut wide);
        let mut out = vec![0.0; tokens * size];
        let w = MatRef::from_row_major_slice(&wide, size, cols);
        let x = MatRef::from_row_major_slice(x, tokens, cols);
        let to = MatMut::from_row_major_slice_mut(&mut out, tokens, size);
        matmul(to, Accum::Replace, x, w.transpose(), 1.0, Par::Seq);
        out
    };
    let firsts: Vec<usize> = (0..rows).step_by(PANEL).collect();
    let panels: Vec<Vec<f32>> = firsts.par_iter().map(|&first| panel(first)).collect();
    let mut out = vec![0.0; tokens * rows];
    for (&first, panel) in firsts.iter().zip(&panels) {
        let size = PANEL.min(rows - first);
        for (token, from) in panel.chunks_exact(size).enumerate() {
            out[token * rows + first..][..size].copy_from_slice(from);
        }
    }
    if let Some(bias) = bias {
        for row in out.chunks_exact_mut(rows) {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }
    out
}
