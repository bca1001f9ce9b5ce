//! The options of `wattn lm`, and how they map to a session.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use wattn::lm::{LayerAttention, LmConfig, Sampling, SessionOptions};
use wattn::{InfiniteHip, Mask, Preset};

use super::EngineArgs;
use super::sparse::{AttentionArg, SparseArgs};
use crate::failure::Failure;

#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LmArgs {
    #[command(subcommand)]
    pub(crate) command: Option<LmCommand>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LmCommand {
    /// Compare dense attention with HiP, InfiniteHiP, a window and random blocks of equal budgets
    ///
    /// Three tables. Bits per byte of held-out text against context length: all methods and lengths score the same tokens, the last 256 of
    /// windows that end at the same places. Needles: passkeys hidden in text at some depth and asked for at its end. The share of softmax
    /// mass that each method captures, by layer.
    Eval(EvalArgs),
}

/// The model and where it runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelArgs {
    /// Folder of config.json, tokenizer.json, *.safetensors and perhaps generation_config.json [default: the small model that comes with
    /// the program]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Number of prompt tokens that are computed at a time
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) chunk: u32,
    /// Number of first layers that stay dense; sparse attention there costs the most accuracy
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) dense_layers: u32,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct WriteArgs {
    /// The text to continue
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(crate) prompt: Option<String>,
    /// A file with the text to continue
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Largest number of tokens to write
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) tokens: u32,
    /// Divisor of the logits; 0 always takes the best token
    #[arg(long, value_name = "X", default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f32,
    /// Draw from this many of the best tokens; 0 draws from all
    #[arg(long, value_name = "N", default_value_t = 40)]
    top_k: u32,
    /// Draw from the best tokens that have this share of the probability
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f32,
    /// Seed of the draws; the same seed draws the same tokens
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Capacity of the cache in tokens [default: the prompt and the tokens to write]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) context: Option<u32>,
    /// Read and write on past the trained length of the model, where most models write nonsense
    #[arg(long)]
    pub(crate) past_context: bool,
    /// On a GPU, run parts of the model again after the text to measure attention's share of the time; the CPU reports it anyway
    #[arg(long)]
    pub(crate) attention_share: bool,
    /// The attention of all layers after the first dense ones
    #[arg(long, value_enum, default_value_t = AttentionArg::Dense)]
    attention: AttentionArg,
    /// How one layer attends, different from the others: N=dense, N=hip, N=infinite-hip or N=PRESET
    #[arg(long, value_name = "N=METHOD", value_delimiter = ',')]
    layer: Vec<String>,
    /// Write counts, seconds and rates as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    // Last, because its headings would apply to all later options.
    #[command(flatten)]
    sparse: SparseArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Texts to score, each a document [default: the held-out documents that come with the program]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Vec<PathBuf>,
    /// Context lengths, in tokens [default: a quarter, a half and the whole of the trained context]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    pub(crate) contexts: Vec<u32>,
    /// Keys that sparse attention may read for a query, sinks and window included [default: an eighth and a quarter of the longest context]
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub(crate) budgets: Vec<u32>,
    /// Presets of InfiniteHiP to compare as well
    #[arg(long, value_name = "PRESET", value_delimiter = ',')]
    pub(crate) presets: Vec<String>,
    /// Number of windows of text to score
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) windows: u32,
    /// Number of needles at each depth; 0 leaves needles out
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) needles: u32,
    /// Seed of the needles and of random blocks
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Draw bits per byte against context length as a PNG
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
    /// Write the tables as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl WriteArgs {
    pub(crate) fn sampling(&self) -> Sampling {
        let Self { temperature, top_k, top_p, seed, .. } = *self;
        Sampling::GREEDY.with_temperature(temperature).with_top_k(top_k).with_top_p(top_p).with_seed(seed)
    }

    /// The options of a session for `tokens` tokens.
    pub(crate) fn session(&self, config: &LmConfig, tokens: u32) -> Result<SessionOptions, Failure> {
        let layers = self.layers()?;
        let mut wanted = vec![self.attention];
        wanted.extend(layers.iter().filter_map(|(_, method)| AttentionArg::from_name(method)));
        self.sparse.check(&wanted)?;
        let mut options = SessionOptions::new(config, self.context.unwrap_or(tokens))
            .with_chunk(self.model.chunk)
            .with_attention(&self.method(self.attention)?, self.model.dense_layers);
        for (layer, method) in layers {
            if layer >= config.num_layers {
                let message = format!("--layer {layer}={method}: the model has {} layers", config.num_layers);
                return Err(Failure::Usage(message));
            }
            let attention = match (AttentionArg::from_name(method), Preset::from_name(method)) {
                (Some(attention), _) => self.method(attention)?,
                (None, Some(preset)) => LayerAttention::select(InfiniteHip::from(preset)),
                (None, None) => return Err(Failure::Usage(format!("--layer {layer}={method}: no such method"))),
            };
            options = options.with_layer(layer, attention);
        }
        Ok(options)
    }

    fn layers(&self) -> Result<Vec<(u32, &str)>, Failure> {
        self.layer
            .iter()
            .map(|text| {
                let wrong = || Failure::Usage(format!("--layer {text}: must be a layer, `=` and a method"));
                let (layer, method) = text.split_once('=').ok_or_else(wrong)?;
                Ok((layer.parse().map_err(|_| wrong())?, method))
            })
            .collect()
    }

    fn method(&self, attention: AttentionArg) -> Result<LayerAttention, Failure> {
        if attention == AttentionArg::Blocks {
            let message = "--attention blocks reads lists from a file, and a model has none; take hip or infinite-hip";
            return Err(Failure::Usage(message.to_owned()));
        }
        let selector = self.sparse.selector(attention, Mask::Causal, |_| 0)?;
        selector.map_or(Ok(LayerAttention::Dense), |selector| selector.layer())
    }
}
