//! Files of a checkpoint: checked before they are read, and never read past their limit.

use std::fs;
use std::io::{Error, Read as _};
use std::path::Path;

use super::error::{LmError, LmResult};

/// Limit on a configuration or index: a hundred times the size of the largest models'.
pub(super) const MOST_JSON: u64 = 2 << 20;

/// Limit on a tokenizer: twice the size of the largest vocabularies'.
pub(super) const MOST_TOKENIZER: u64 = 64 << 20;

/// Bytes of a regular file. Other files, such as devices, may have no end.
pub(super) fn len(path: &Path) -> LmResult<u64> {
    let failed = |source| LmError::File { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(failed(Error::other("not a regular file"))) }
}

/// The text of a file of at most `most` bytes.
pub(super) fn text(path: &Path, most: u64) -> LmResult<String> {
    let failed = |source| LmError::File { path: path.to_owned(), source };
    let too_long = |len| Err(LmError::TooLong { path: path.to_owned(), len, most });
    let len = len(path)?;
    if len > most {
        return too_long(len);
    }
    let mut bytes = Vec::with_capacity(len as usize); // at most `most`
    fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > most {
        return too_long(bytes.len() as u64);
    }
    String::from_utf8(bytes).map_err(|error| failed(Error::other(error.utf8_error())))
}

/// Bytes of memory that a process may still take, where the system reports it.
pub(super) fn available_memory() -> Option<u64> {
    let bytes = |text: &str, field: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
    };
    bytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// Fails if the machine has too little memory, where the system reports it.
pub(super) fn check_memory(what: &'static str, needed: u64) -> LmResult<()> {
    match available_memory() {
        Some(available) if needed > available => Err(LmError::Memory { what, needed, available }),
        _ => Ok(()),
    }
}
