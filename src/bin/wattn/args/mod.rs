//! The command line: subcommands, options, and how they map to the library's types.

mod accepted;
pub(crate) mod bench;
mod engine;
pub(crate) mod lm;
mod mask;
pub(crate) mod modify;
pub(crate) mod sparse;
pub(crate) mod tune;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use wattn::{AttentionShape, BlockListSpec, DType, Granularity, Mask};

pub(crate) use accepted::command;
pub(crate) use engine::{Backend, EngineArgs, TierArg};

use crate::failure::Failure;
use crate::recall::context::{MAX_HEADS, MAX_LENGTH};
use mask::MaskArgs;
use modify::ScoreArgs;
use sparse::{AttentionArg, Selector, SparseArgs, check_taken};

/// Flash attention on any GPU through wgpu, with an exact CPU path.
#[derive(Debug, Parser)]
#[command(
    name = "wattn",
    version,
    after_help = "Without a command, `wattn` lets the model that comes with it read a page and write on, with dense and with\n\
                  sparse attention: under a minute, no GPU needed.\n\
                  Files named `-` are stdin and stdout.\n\
                  Exit code: 0, or 2 with one line `error: ...` on stderr."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
}

/// Options of every command.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct GlobalArgs {
    /// Print only results and errors: no notes, progress and statistics
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Number of threads that compute on the CPU [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Predict every next byte of a text by attention alone, and check the attention against f64
    ///
    /// Key j holds the context that ends before byte j, and value j is byte j as a one-hot row of 256; query i holds the
    /// context that ends with byte i. Causal attention then gives, for every i at once, the distribution of byte i + 1:
    /// it looks up what followed similar contexts earlier in the same text. Nothing is trained.
    ///
    /// A context is the sum of one random +-1 vector per (lag, byte); heads differ in how far back they look.
    ///
    /// With `--attention hip` or `infinite-hip`, sparse attention runs beside dense and one table compares them. These keys are hard for
    /// any search through a tree: neighbouring keys are unrelated, so that no key predicts the scores of its neighbours. Expect a loss here
    /// that keys of language models do not show.
    Recall(RecallArgs),
    /// Run attention on the tensors of a safetensors file
    ///
    /// Reads `q [batch, seq_len_q, num_q_heads, head_dim]`, `k [batch, seq_len_kv, num_kv_heads, head_dim]`,
    /// `v [batch, seq_len_kv, num_kv_heads, head_dim_v]` in F32, F16 or BF16, all three alike, and optionally
    /// `seq_lens_kv [batch]` in integers of 8 to 64 bits: how many keys of each sequence count.
    ///
    /// Writes `out [batch, seq_len_q, num_q_heads, head_dim_v]` and `lse [batch, seq_len_q, num_q_heads]` (the natural log of the sum of
    /// exponentials) in F32. A row that sees no key has out 0 and lse -3e38.
    ///
    /// Query i has position i + seq_len_kv - seq_len_q, so that the last query is at the last key.
    ///
    /// With `--attention hip` or `infinite-hip` each block of queries attends to selected blocks of keys, to the first keys (sinks) and to
    /// the last keys (window), causally. The output then also has `block_indices [batch, sets, num_q_blocks, max_blocks]` and `block_counts
    /// [batch, sets, num_q_blocks]` in I32: first keys of blocks, ascending, then -1. A set is a query head, a KV head or the layer, see
    /// `--granularity`. `--attention blocks` reads two such tensors, of any integer type, from the input instead.
    Attend(AttendArgs),
    /// Continue a text with a language model: Llama, Mistral, Qwen2 or Qwen3 from Hugging Face files, or the small model inside
    ///
    /// Reads the prompt chunk by chunk, then writes token by token, on a GPU or on the CPU. With `--attention hip` or
    /// `infinite-hip` all layers but the first attend to selected blocks of keys, to the first keys and to the last ones.
    Lm(Box<lm::LmArgs>),
    /// List the adapters, their features, and the plan for a shape
    Info(InfoArgs),
    /// Measure a device's ceilings, and the share of them that attention and selection reach
    ///
    /// First the rates of copies, of f32 and f16 arithmetic and of matrix units, if there are any; then prompts, decoding, shared KV heads,
    /// widths of heads, 16-bit storage, selection and sparse attention, against the length of the context. Every result is compared with
    /// the f64 oracle before it is timed. Times are from the device's own timestamps if it has them, and the report says so.
    ///
    /// Bytes count the inputs and outputs, each once; operations count the products, two for each pair of query and key that see each other
    /// and each column. The share of the ceiling is the time that the ceilings would allow over the time measured.
    Bench(Box<bench::BenchArgs>),
    /// Find the fastest tilings of a device by trying them, and keep them for the other commands
    ///
    /// Every candidate is compared with the f64 oracle before it is timed, and a wrong one never wins. A candidate that wins by more than
    /// the noise is kept for this adapter, driver and version, in `tuning.json` of the user's cache folder. All other commands read it,
    /// unless `--no-tune` is given.
    Tune(Box<tune::TuneArgs>),
    /// Print a shell's completions of commands and options
    ///
    /// For bash: `wattn completions bash > ~/.local/share/bash-completion/completions/wattn`.
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeArg {
    F32,
    F16,
    Bf16,
}

impl From<DtypeArg> for DType {
    fn from(dtype: DtypeArg) -> Self {
        match dtype {
            DtypeArg::F32 => Self::F32,
            DtypeArg::F16 => Self::F16,
            DtypeArg::Bf16 => Self::BF16,
        }
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RecallArgs {
    /// The text, of any bytes; `-` is stdin [default: part of "The Rust Programming Language"]
    pub(crate) file: Option<PathBuf>,
    /// Number of bytes to use, from the start of the file; k and M are understood [default: all, up to 1M]
    #[arg(long, value_name = "BYTES", value_parser = parse_length)]
    pub(crate) length: Option<usize>,
    #[command(flatten)]
    pub(crate) options: RecallOptions,
    /// Sparse attention to compare with dense, in one table: dense, hip, infinite-hip
    #[arg(long, value_name = "METHOD,...", value_enum, value_delimiter = ',', default_value = "dense")]
    attention: Vec<AttentionArg>,
    /// Draw which keys the queries of sparse attention see, as a PNG
    #[arg(long, value_name = "FILE")]
    pub(crate) mask_png: Option<PathBuf>,
    /// Draw where the last bytes attend and the cost along the file, as a PNG
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    // Last, because its headings would apply to all later options.
    #[command(flatten)]
    sparse: SparseArgs,
}

impl RecallArgs {
    /// The wanted sparse methods, in their order, each once.
    pub(crate) fn selectors(&self) -> Result<Vec<Selector>, Failure> {
        if self.attention.contains(&AttentionArg::Blocks) {
            let message = "--attention blocks reads lists from a file, and recall has none; take hip or infinite-hip";
            return Err(Failure::Usage(message.to_owned()));
        }
        self.sparse.check(&self.attention)?;
        let mut selectors: Vec<Selector> = Vec::new();
        for &attention in &self.attention {
            let selector = self.sparse.selector(attention, Mask::Causal, |method| method.crossover(u32::MAX))?;
            selectors.extend(selector.filter(|new| selectors.iter().all(|old| old.name != new.name)));
        }
        if selectors.is_empty() && self.mask_png.is_some() {
            return Err(Failure::Usage("--mask-png draws what --attention hip or infinite-hip selects".to_owned()));
        }
        Ok(selectors)
    }
}

/// Options of both `recall` and the demo.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecallOptions {
    /// Number of heads, each with another reach into the past
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HEADS)))]
    pub(crate) heads: u32,
    /// Width of the context vectors, a multiple of 4; wider vectors are less noisy
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = parse_head_dim)]
    pub(crate) head_dim: u32,
    /// How q, k and v are stored
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    pub(crate) dtype: DtypeArg,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Number of queries in one call
    #[arg(long, value_name = "ROWS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) chunk: u32,
    /// Seed of the +-1 vectors
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct AttendArgs {
    /// Safetensors file with q, k and v; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Safetensors file to write, replaced whole or not at all; `-` is stdout, with texts on stderr
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    mask: MaskArgs,
    /// The keys that attention reads
    #[arg(long, value_enum, default_value_t = AttentionArg::Dense)]
    pub(crate) attention: AttentionArg,
    /// Also run dense attention, and write the share of its weight that each sparse row saw: `captured_mass` [batch, seq_len_q,
    /// num_q_heads], exp(lse - dense lse)
    #[arg(long)]
    pub(crate) captured_mass: bool,
    /// Show keys after the query's position too, without sinks and window (hip and blocks)
    #[arg(long, conflicts_with = "causal")]
    non_causal: bool,
    /// Keys of a block (blocks)
    #[arg(long, value_name = "KEYS", allow_negative_numbers = true)]
    block_size: Option<u32>,
    /// Factor on q·k [default: 1 / sqrt(head_dim)]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) softmax_scale: Option<f32>,
    #[command(flatten)]
    pub(crate) scores: ScoreArgs,
    /// Round q, k and v to this type first [default: no rounding]
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<DtypeArg>,
    /// Multiply bf16 as f16 where a device has matrices, each head scaled to fit
    #[arg(long)]
    pub(crate) bf16_matrices: bool,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Write shapes, seconds and rates as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    // Last, because its headings would apply to all later options.
    #[command(flatten)]
    sparse: SparseArgs,
}

impl AttendArgs {
    /// The mask. Selected blocks are causal unless `--non-causal` is given.
    pub(crate) fn mask(&self) -> Result<Mask, Failure> {
        let attention = self.attention;
        self.sparse.check(&[attention])?;
        if self.block_size.is_some() {
            check_taken("--block-size", &[AttentionArg::Blocks], &[attention])?;
        }
        if self.non_causal {
            check_taken("--non-causal", &[AttentionArg::Hip, AttentionArg::Blocks], &[attention])?;
        }
        if attention == AttentionArg::Dense {
            if self.captured_mass {
                let message = "--captured-mass compares sparse attention with dense; dense alone captures everything";
                return Err(Failure::Usage(message.to_owned()));
            }
            return self.mask.mask();
        }
        let windows = [("--window-left", self.mask.window_left), ("--window-right", self.mask.window_right)];
        if let Some((name, _)) = windows.into_iter().find(|(_, given)| given.is_some()) {
            let message = format!("{name} is for --attention dense; {} has --window", attention.name());
            return Err(Failure::Usage(message));
        }
        Ok(if self.non_causal { Mask::Full } else { Mask::Causal })
    }

    /// The selection to make, if the method makes one.
    pub(crate) fn selector(&self, mask: Mask) -> Result<Option<Selector>, Failure> {
        // Callers who ask for sparse attention here want to see its lists.
        self.sparse.selector(self.attention, mask, |_| 0)
    }

    /// The meaning of the lists of `--attention blocks`, with room for `max_blocks` in each.
    pub(crate) fn listed_blocks(&self, max_blocks: u32) -> Result<BlockListSpec, Failure> {
        let needed = |name, value: Option<u32>| {
            value.ok_or_else(|| {
                Failure::Usage(format!("--attention blocks needs {name}, which the lists were made for"))
            })
        };
        Ok(BlockListSpec::new(
            needed("--block-q", self.sparse.block_size_q())?,
            needed("--block-size", self.block_size)?,
            max_blocks,
        )
        .with_granularity(self.sparse.granularity().unwrap_or(Granularity::QueryHead))
        .with_sink_size(self.sparse.sink().unwrap_or(0))
        .with_window_size(self.sparse.window().unwrap_or(0))
        .with_dense_below(self.sparse.dense_below().unwrap_or(0)))
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct InfoArgs {
    /// Only adapters whose name contains this text
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Plan for these sizes: batch,seq_len_q,seq_len_kv,num_q_heads,num_kv_heads,head_dim,head_dim_v
    #[arg(long, value_name = "SIZES", value_parser = parse_shape)]
    pub(crate) shape: Option<AttentionShape>,
    /// How q, k and v are stored
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    pub(crate) dtype: DtypeArg,
    /// Plan for bf16 with f16 matrices, each head scaled to fit
    #[arg(long)]
    pub(crate) bf16_matrices: bool,
    #[command(flatten)]
    pub(crate) mask: MaskArgs,
    /// Plan with these device features and no others
    #[arg(long, value_enum)]
    pub(crate) tier: Option<TierArg>,
    /// Measure memory, arithmetic and latencies of each device, and print the length up to which dense attention is as fast
    #[arg(long)]
    pub(crate) measure: bool,
    /// Write the table as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

fn parse_length(text: &str) -> Result<usize, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match (lower.strip_suffix('k'), lower.strip_suffix('m')) {
        (Some(digits), _) => (digits, 1 << 10),
        (_, Some(digits)) => (digits, 1 << 20),
        _ => (lower.as_str(), 1),
    };
    let length = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(unit));
    match length {
        Some(length @ 2..=MAX_LENGTH) => Ok(length),
        _ => Err("must be from 2 to 1M bytes".to_owned()),
    }
}

fn parse_head_dim(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(dim @ 4..=256) if dim % 4 == 0 => Ok(dim),
        _ => Err("must be a multiple of 4 from 4 to 256".to_owned()),
    }
}

fn parse_shape(text: &str) -> Result<AttentionShape, String> {
    let sizes: Result<Vec<u32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match sizes.as_deref() {
        Ok(&[batch_size, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, head_dim, head_dim_v]) => {
            Ok(AttentionShape { batch_size, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, head_dim, head_dim_v })
        }
        _ => Err("must be seven numbers separated by commas".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_map_to_masks() {
        let mask =
            |causal, window_left, window_right| MaskArgs { causal, window_left, window_right, causal_at: None }.mask();
        let window = |left, right| Mask::Window { left, right };
        assert_eq!(mask(false, None, None).unwrap(), Mask::Full);
        assert_eq!(mask(true, None, None).unwrap(), Mask::Causal);
        assert_eq!(mask(true, None, Some(0)).unwrap(), Mask::Causal);
        assert_eq!(mask(false, None, Some(0)).unwrap(), Mask::Causal);
        assert_eq!(mask(true, Some(5), None).unwrap(), window(Some(5), Some(0)));
        assert_eq!(mask(false, Some(0), None).unwrap(), window(Some(0), None));
        assert_eq!(mask(false, None, Some(3)).unwrap(), window(None, Some(3)));
        assert!(mask(true, None, Some(1)).is_err());
    }

    #[test]
    fn lengths_have_units_and_limits() {
        assert_eq!(parse_length("32k"), Ok(32 << 10));
        assert_eq!(parse_length("1M"), Ok(1 << 20));
        assert_eq!(parse_length("77"), Ok(77));
        for bad in ["", "k", "0", "1", "-3", "2M", "99999999999999999999", "18446744073709551615k", "3.5"] {
            assert!(parse_length(bad).is_err(), "{bad}");
        }
    }
}
