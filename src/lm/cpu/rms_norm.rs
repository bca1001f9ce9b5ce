//! Root mean square norm (*Root Mean Square Layer Normalization*, equation 4).

/// Each row of `x` over the square root of its mean square, times `weight`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut out = x.to_vec();
    for row in out.chunks_exact_mut(weight.len()) {
        norm_row(row, weight, eps);
    }
    out
}

pub(super) fn norm_row(row: &mut [f32], weight: &[f32], eps: f32) {
    let sum: f32 = row.iter().map(|x| x * x).sum();
    let scale = 1.0 / (sum / row.len() as f32 + eps).sqrt();
    for (x, weight) in row.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}
