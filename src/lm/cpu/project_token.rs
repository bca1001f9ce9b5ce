//! The product of a single row with weights.

use rayon::prelude::*;

use crate::lm::Matrix;

/// Outputs of one task.
const ROWS: usize = 64;
/// Partial sums of a dot product, for the vector units.
const LANES: usize = 16;

/// `x W^T + bias` for one row. Reads each weight once, in its stored type.
///
/// The result has the same bits for any number of threads.
pub fn project_token(x: &[f32], weight: &Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let cols = weight.cols();
    let mut out = vec![0.0; weight.rows()];
    out.par_chunks_mut(ROWS).enumerate().for_each(|(task, out)| {
        let mut row = vec![0.0; cols];
        for (index, out) in out.iter_mut().enumerate() {
            let at = task * ROWS + index;
            weight.elements().widen(at * cols, &mut row);
            *out = dot(x, &row) + bias.map_or(0.0, |bias| bias[at]);
        }
    });
    out
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}
