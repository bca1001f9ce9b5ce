//! Heads of q and k on their way from the projection to attention.

use super::rms_norm::norm_row;

/// Sizes of [`rotate_heads`].
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub num_q_heads: usize,
    /// Heads of k, and as many of v.
    pub num_kv_heads: usize,
    /// Width of each.
    pub head_dim: usize,
}

/// Splits the rows of `qkv`, `[tokens, (num_q_heads + 2 num_kv_heads) * head_dim]`, into q, k and v. Heads of q and k are
/// normed, if there are weights for it, and rotated by the angles of `table`, which begins at the first token's position.
pub fn rotate_heads(qkv: &[f32], heads: Heads, norms: Option<(&[Vec<f32>; 2], f32)>, table: &[f32]) -> [Vec<f32>; 3] {
    let Heads { num_q_heads, num_kv_heads, head_dim } = heads;
    let (q_size, kv_size) = (num_q_heads * head_dim, num_kv_heads * head_dim);
    let tokens = qkv.len() / (q_size + 2 * kv_size);
    let [mut q, mut k, mut v] = [q_size, kv_size, kv_size].map(|size| Vec::with_capacity(tokens * size));
    for (row, angles) in qkv.chunks_exact(q_size + 2 * kv_size).zip(table.chunks_exact(head_dim)) {
        q.extend_from_slice(&row[..q_size]);
        k.extend_from_slice(&row[q_size..q_size + kv_size]);
        v.extend_from_slice(&row[q_size + kv_size..]);
        for (all, size, which) in [(&mut q, q_size, 0), (&mut k, kv_size, 1)] {
            let start = all.len() - size;
            for head in all[start..].chunks_exact_mut(head_dim) {
                if let Some((weights, eps)) = norms {
                    norm_row(head, &weights[which], eps);
                }
                rotate(head, angles);
            }
        }
    }
    [q, k, v]
}

/// Turns the pairs `(i, i + dim / 2)` by the angles whose cosines and sines are given.
fn rotate(head: &mut [f32], angles: &[f32]) {
    let (first, second) = head.split_at_mut(angles.len() / 2);
    for ((a, b), angle) in first.iter_mut().zip(second).zip(angles.chunks_exact(2)) {
        let (cos, sin) = (angle[0], angle[1]);
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}
