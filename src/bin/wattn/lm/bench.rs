//! The model, texts and settings of an evaluation.

use wattn::lm::{Model, RopeScaling, Session, SessionOptions};

use super::Loaded;
use super::compare::Method;
use super::text::Tokens;
use crate::args::lm::EvalArgs;
use crate::failure::Failure;

/// The model, texts and settings of an evaluation.
pub(super) struct Bench<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) args: &'a EvalArgs,
    pub(super) documents: &'a [Tokens],
}

impl Bench<'_> {
    pub(super) fn model(&self) -> &Model {
        &self.loaded.model
    }

    /// Whether angles depend on the length of the text, so that each length needs a session of its own.
    pub(super) fn follows_length(&self) -> bool {
        matches!(self.model().config().rope.scaling, RopeScaling::Dynamic { .. })
    }

    pub(super) fn session(&self, engine: &wattn::Engine, method: &Method, capacity: u32) -> Result<Session, Failure> {
        let model = &self.args.model;
        let options = SessionOptions::new(self.model().config(), capacity)
            .with_chunk(model.chunk)
            .with_text_len(capacity)
            .with_attention(&method.attention, model.dense_layers);
        Ok(Session::new(&self.loaded.model, engine, &options)?)
    }
}
