//! Options of a session.

use super::config::LmConfig;
use super::error::{LmError, LmResult};
use crate::{BlockListSpec, Granularity, Hip, HostBlockLists, SelectionMethod};

/// Where the lists of blocks of sparse attention come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListSource {
    /// The method selects them.
    Selected,
    /// Random candidates, as many as the method would select: the baseline of a selection.
    Random {
        /// The same lists for the same seed.
        seed: u64,
    },
    /// No blocks: the method's sinks and window only.
    Empty,
}

/// How a layer attends. A layer with a sliding window of its own stays dense within it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LayerAttention {
    /// To every key.
    Dense,
    /// To blocks of keys, sinks and a window.
    Sparse {
        /// Sizes, and the method that selects blocks.
        method: SelectionMethod,
        /// The source of the lists.
        lists: ListSource,
        /// The heads that share a list; `None`: the method's default.
        granularity: Option<Granularity>,
        /// Query blocks that see no more keys than these are dense; 0 leaves none dense.
        dense_below: u32,
    },
}

impl LayerAttention {
    /// A method's own selection.
    #[must_use]
    pub fn select(method: impl Into<SelectionMethod>) -> Self {
        Self::listed(method, ListSource::Selected)
    }

    /// A method's sizes, with lists from elsewhere.
    #[must_use]
    pub fn listed(method: impl Into<SelectionMethod>, lists: ListSource) -> Self {
        Self::Sparse { method: method.into(), lists, granularity: None, dense_below: 0 }
    }

    /// Only the first keys and the last keys.
    #[must_use]
    pub fn window(sink_size: u32, window_size: u32) -> Self {
        let method = Hip { sink_size, window_size, ..Hip::default() };
        Self::listed(method, ListSource::Empty)
    }
}

/// The keys that a layer's heads saw for a chunk of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkLists {
    /// Position of the first token of the chunk.
    pub at: u32,
    /// Its tokens.
    pub tokens: u32,
    /// The sizes and rules of the lists.
    pub selection: BlockListSpec,
    /// The lists.
    pub blocks: HostBlockLists,
}

/// Sizes of a [`Session`](super::Session), and the attention of each layer.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOptions {
    pub(crate) capacity: u32,
    pub(crate) chunk: u32,
    pub(crate) text_len: u32,
    pub(crate) attention: Vec<LayerAttention>,
}

impl SessionOptions {
    /// A session with capacity for `capacity` tokens, dense, with prompts read in chunks of 256. Its texts may have the model's trained
    /// length.
    #[must_use]
    pub fn new(config: &LmConfig, capacity: u32) -> Self {
        let attention = vec![LayerAttention::Dense; config.num_layers as usize];
        Self { capacity, chunk: 256, text_len: config.trained_len, attention }
    }

    /// Sets the length of the longest text, if it differs from the trained length, beyond which most models write nonsense.
    /// [Dynamic](super::RopeScaling::Dynamic) scaling uses this length from the first token on.
    #[must_use]
    pub fn with_text_len(mut self, tokens: u32) -> Self {
        self.text_len = tokens;
        self
    }

    /// Sets the number of prompt tokens that are computed at a time; fewer where a device's buffers hold fewer.
    #[must_use]
    pub fn with_chunk(mut self, tokens: u32) -> Self {
        self.chunk = tokens;
        self
    }

    /// Sets the attention of all layers but the first `dense_layers`. Sparse attention in the first layers of a model costs the most
    /// accuracy.
    #[must_use]
    pub fn with_attention(mut self, attention: &LayerAttention, dense_layers: u32) -> Self {
        self.attention.iter_mut().skip(dense_layers as usize).for_each(|layer| *layer = attention.clone());
        self
    }

    /// Sets the attention of one layer.
    ///
    /// # Panics
    /// When there is no such layer.
    #[must_use]
    pub fn with_layer(mut self, layer: u32, attention: LayerAttention) -> Self {
        self.attention[layer as usize] = attention;
        self
    }

    pub(crate) fn validate(&self, config: &LmConfig) -> LmResult<()> {
        let invalid = |option, value: u64, rule| Err(LmError::Option { option, value: value.to_string(), rule });
        if self.capacity == 0 || self.capacity > crate::AttentionProblem::MAX_SEQ_LEN {
            return invalid("capacity", self.capacity.into(), "must be from 1 to 2^29 - 1 tokens");
        }
        if self.chunk == 0 || self.chunk > 1 << 16 {
            return invalid("chunk", self.chunk.into(), "must be from 1 to 65536 tokens");
        }
        if self.attention.len() != config.num_layers as usize {
            let layers = self.attention.len() as u64;
            return invalid("attention", layers, "must have an entry for each layer of the model");
        }
        Ok(())
    }
}

/// How a token is drawn from its logits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// Divisor of the logits; 0: the best token, always.
    pub temperature: f32,
    /// Number of best tokens that may be drawn, besides equals of the last of them; 0: all.
    pub top_k: u32,
    /// Only the best that together have this share of the probability are drawn; 1: all.
    pub top_p: f32,
    /// The same seed draws the same tokens.
    pub seed: u32,
}

crate::setters::setters!(Sampling {
    with_temperature(temperature: f32)
    with_top_k(top_k: u32)
    with_top_p(top_p: f32)
    with_seed(seed: u32)
});

impl Sampling {
    /// The best token, always.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };

    /// Checks the rules.
    ///
    /// # Errors
    /// [`LmError::Option`] naming the option.
    pub fn validate(&self) -> LmResult<()> {
        let invalid = |option, value: f32, rule| Err(LmError::Option { option, value: value.to_string(), rule });
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return invalid("temperature", self.temperature, "must be 0 or a positive number");
        }
        // With a smaller temperature, differences of logits exceed the range of f32.
        if self.temperature > 0.0 && self.temperature < 1e-6 {
            return invalid("temperature", self.temperature, "must be 0 or at least 1e-6");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return invalid("top_p", self.top_p, "must be above 0 and at most 1");
        }
        Ok(())
    }
}
