//! Rows of the embedding.

use crate::lm::Matrix;

/// `hidden[t] = embedding[tokens[t]]`; the tokens are valid rows.
pub fn embed_tokens(tokens: &[u32], embedding: &Matrix) -> Vec<f32> {
    let width = embedding.cols();
    let mut hidden = vec![0.0; tokens.len() * width];
    for (&token, row) in tokens.iter().zip(hidden.chunks_exact_mut(width)) {
        embedding.elements().widen(token as usize * width, row);
    }
    hidden
}
