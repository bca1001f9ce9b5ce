//! The attention of a layer, as problems of the library.

use super::config::LmConfig;
use super::error::LmResult;
use super::options::{LayerAttention, SessionOptions};
use crate::quality::random_blocks;
use crate::{AttentionProblem, AttentionShape, DType, HostBlockLists, Mask, SelectionProblem};

/// The problems of a layer for a number of tokens, whatever the length of the context.
#[derive(Clone, Debug)]
pub(crate) struct LayerProblems {
    pub(crate) dense: AttentionProblem,
    /// The lists of blocks, and attention to them, where the layer is sparse.
    pub(crate) sparse: Option<(SelectionProblem, AttentionProblem)>,
}

impl LayerProblems {
    pub(crate) fn new(config: &LmConfig, options: &SessionOptions, layer: usize, tokens: u32) -> LmResult<Self> {
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q: tokens,
            seq_len_kv: options.capacity,
            num_q_heads: config.num_q_heads,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            head_dim_v: config.head_dim,
        };
        let window = config.sliding_windows[layer];
        // A window of `window` keys includes the query's own.
        let left = window.map(|keys| keys - 1);
        let mask = if left.is_some() { Mask::Window { left, right: Some(0) } } else { Mask::Causal };
        let dense = AttentionProblem::new(shape, DType::F32).with_mask(mask).with_seq_lens_kv();
        dense.validate()?;
        let sparse = match &options.attention[layer] {
            LayerAttention::Sparse { method, granularity, dense_below, .. } if window.is_none() => {
                let selection = SelectionProblem::new(shape, DType::F32, method.clone()).with_seq_lens_kv();
                let selection = selection.with_dense_below(*dense_below);
                let selection = match granularity {
                    Some(granularity) => selection.with_granularity(*granularity),
                    None => selection,
                };
                selection.validate()?;
                let attention = dense.clone().with_blocks(selection.blocks());
                attention.validate()?;
                Some((selection, attention))
            }
            _ => None,
        };
        Ok(Self { dense, sparse })
    }
}

/// Random lists for a layer and a chunk that begins at position `at`: the same on every engine.
pub(crate) fn random_lists(selection: &SelectionProblem, seed: u64, layer: usize, at: u32) -> LmResult<HostBlockLists> {
    let seq_len = at + selection.shape().seq_len_q;
    Ok(random_blocks(selection, Some(&[seq_len]), seed ^ (u64::from(at) << 16) ^ layer as u64)?)
}
