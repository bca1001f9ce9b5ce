//! A model in host memory.

use std::path::Path;

use super::checkpoint::Checkpoint;
use super::config::LmConfig;
use super::error::LmResult;
use super::files;
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
    /// Loads `config.json`, `tokenizer.json` and the `*.safetensors` of a folder, as Hugging Face lays them out, and the tokens that end a
    /// text from `generation_config.json`, where there is one that names any.
    ///
    /// # Errors
    /// [`LmError::File`](super::LmError::File), and the errors of [`LmConfig::from_json`] and [`Checkpoint`], which name the field or the
    /// tensor.
    ///
    /// # Cost
    /// Reads all weights into host memory, in their stored types.
    pub fn open(folder: &Path) -> LmResult<Self> {
        Self::open_with(folder, |_, _| ())
    }

    /// [`Model::open`], with a report after each layer of the numbers of loaded and of all layers.
    ///
    /// # Errors
    /// The errors of [`Model::open`].
    pub fn open_with(folder: &Path, mut progress: impl FnMut(u32, u32)) -> LmResult<Self> {
        let mut config = LmConfig::from_json(&files::text(&folder.join("config.json"), files::MOST_JSON)?)?;
        let generation = folder.join("generation_config.json");
        if generation.exists() {
            config.read_generation(&files::text(&generation, files::MOST_JSON)?)?;
        }
        // Headers are small, and their errors are reported before the tokenizer is read.
        let checkpoint = Checkpoint::open(folder)?;
        let tokenizer = files::text(&folder.join("tokenizer.json"), files::MOST_TOKENIZER)?;
        let tokenizer = TextTokenizer::from_json(&tokenizer)?;
        Self::new(config, tokenizer, &checkpoint, &mut progress)
    }

    /// The same from files in memory.
    ///
    /// # Errors
    /// The errors of [`Model::open`].
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
