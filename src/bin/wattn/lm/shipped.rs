//! The model that comes with the program, and the documents that were held out from its training.

use serde::Deserialize;
use wattn::lm::{LmResult, Model};

use crate::failure::Failure;

const CONFIG: &str = include_str!("../../../../examples/llm/model/config.json");
const TOKENIZER: &str = include_str!("../../../../examples/llm/model/tokenizer.json");
const WEIGHTS: &[u8] = include_bytes!("../../../../examples/llm/model/model.safetensors");
const HELD_OUT: &str = include_str!("../../../../examples/llm/model/heldout.jsonl");

/// One document.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Document {
    /// Its source: the path below the toolchain's documentation.
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn model() -> LmResult<Model> {
    Model::from_static(CONFIG, TOKENIZER, WEIGHTS)
}

/// Every held-out document.
pub(crate) fn held_out() -> Result<Vec<Document>, Failure> {
    let parse = |line: &str| serde_json::from_str(line);
    HELD_OUT
        .lines()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::content(std::path::Path::new("heldout.jsonl"), error))
}
