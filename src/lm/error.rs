//! Errors of loading and running a model.

use std::path::PathBuf;

/// Everything that loading and running a model can fail with, with names and numbers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LmError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// A file can be read, but its contents do not fit its name.
    #[error("{file}: {reason}")]
    Format {
        /// The file, or its stand-in.
        file: String,
        /// The fault.
        reason: String,
    },
    /// A file is longer than any valid one.
    #[error("{} has {len} bytes or more; at most {most} are read", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length, if known.
        len: u64,
        /// Limit in bytes.
        most: u64,
    },
    /// The machine has too little memory.
    #[error("{what} takes {needed} bytes of memory, {available} are left")]
    Memory {
        /// The part that needs it.
        what: &'static str,
        /// Bytes needed.
        needed: u64,
        /// Bytes that the system still has.
        available: u64,
    },
    /// A field of a configuration is missing, unknown, or has an unsupported value.
    #[error("{file}: {field} = {value}: {rule}")]
    Config {
        /// The file.
        file: &'static str,
        /// The field; in a nested object `object.field`.
        field: String,
        /// Its value as JSON, or `missing`.
        value: String,
        /// The rule.
        rule: &'static str,
    },
    /// None of the files has a tensor that the configuration needs.
    #[error("tensor `{tensor}` is missing from the checkpoint")]
    MissingTensor {
        /// The tensor.
        tensor: String,
    },
    /// The index names a file for a tensor, and the file cannot be used.
    #[error("tensor `{tensor}`: the index places it in {file}, {reason}")]
    Shard {
        /// The tensor.
        tensor: String,
        /// The file that the index names.
        file: String,
        /// The fault.
        reason: &'static str,
    },
    /// A tensor has another shape than the configuration gives it.
    #[error("tensor `{tensor}` has shape {actual:?}, the configuration gives it {expected:?}")]
    TensorShape {
        /// The tensor.
        tensor: String,
        /// Rows and columns, or the length.
        expected: Vec<usize>,
        /// The file's shape.
        actual: Vec<usize>,
    },
    /// A tensor is stored in a type that we do not read.
    #[error("tensor `{tensor}` is stored as {actual}; F32, F16 and BF16 are read")]
    TensorDType {
        /// The tensor.
        tensor: String,
        /// The type, by its name in the file.
        actual: String,
    },
    /// A file ends before a tensor does.
    #[error("tensor `{tensor}` ends at byte {end} of {file}, which has {len}")]
    Truncated {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
        /// Where the tensor ends.
        end: u64,
        /// Bytes in the file.
        len: u64,
    },
    /// The tokenizer cannot be read, or refuses a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A token is not in the vocabulary.
    #[error("token {token}: the vocabulary has {vocab_size}")]
    Token {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: u32,
    },
    /// The context is full.
    #[error("context: {needed} tokens needed, the session was made for {capacity}")]
    Capacity {
        /// Tokens needed.
        needed: u64,
        /// Tokens that the session holds.
        capacity: u32,
    },
    /// The text is longer than the session takes texts to be.
    #[error(
        "text: {needed} tokens, the session takes {text_len}, unless told otherwise as many as the model was trained for"
    )]
    TextLength {
        /// Tokens of the text.
        needed: u64,
        /// Tokens of the longest text of the session.
        text_len: u32,
    },
    /// An option has a value that its rule forbids.
    #[error("{option} = {value}: {rule}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The rule.
        rule: &'static str,
    },
    /// Attention, or the device.
    #[error(transparent)]
    Attention(#[from] crate::Error),
}

/// `Result` with [`LmError`].
pub type LmResult<T, E = LmError> = core::result::Result<T, E>;
