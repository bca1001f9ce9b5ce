//! A model in host memory.

use std::fs;
use std::path::Path;

use super::checkpoint::Checkpoint;
use super::config::LmConfig;
use super::error::{LmError, LmResult};
use super::tokenizer::TextTokenizer;
use super::weights::Weights;

/// Configuration, tokenizer and weights of a model.
#[derive(Debug)]
pub struct Model {
    config: LmConfig,
    tokenizer: TextTokenizer,
    weights: Weights,
    size_bytes: u64,
}

impl Model {
    /// Loads `config.json`, `tokenizer.json` and the `*.safetensors` of a folder, as Hugging Face lays them out.
    ///
    /// # Errors
    /// [`LmError::File`], and those of [`LmConfig::from_json`] and [`Checkpoint`], which name the field or the tensor.
    ///
    /// # Cost
    /// Reads all weights into host memory, as they are stored.
    pub fn open(folder: &Path) -> LmResult<Self> {
        Self::open_with(folder, |_, _| ())
    }

    /// [`Model::open`], telling after each layer how many of how many are loaded.
    ///
    /// # Errors
    /// Those of [`Model::open`].
    pub fn open_with(folder: &Path, mut progress: impl FnMut(u32, u32)) -> LmResult<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| LmError::File { path, source })
        };
        let config = LmConfig::from_json(&read("config.json")?)?;
        let tokenizer = TextTokenizer::from_json(&read("tokenizer.json")?)?;
        Self::new(config, tokenizer, &Checkpoint::open(folder)?, &mut progress)
    }

    /// The same from files in memory.
    ///
    /// # Errors
    /// Those of [`Model::open`].
    pub fn from_static(config: &str, tokenizer: &str, safetensors: &'static [u8]) -> LmResult<Self> {
        let (config, tokenizer) = (LmConfig::from_json(config)?, TextTokenizer::from_json(tokenizer)?);
        Self::new(config, tokenizer, &Checkpoint::from_static(safetensors)?, &mut |_, _| ())
    }

    fn new(
        config: LmConfig,
        tokenizer: TextTokenizer,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u32, u32),
    ) -> LmResult<Self> {
        let layers = config.num_layers;
        let weights = Weights::load(&config, checkpoint, &mut |loaded| progress(loaded, layers))?;
        Ok(Self { config, tokenizer, weights, size_bytes: checkpoint.size_bytes() })
    }

    /// Sizes and constants.
    #[must_use]
    pub const fn config(&self) -> &LmConfig {
        &self.config
    }

    /// Text to tokens and back.
    #[must_use]
    pub const fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    pub(crate) const fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Bytes of the weights, as stored.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}
