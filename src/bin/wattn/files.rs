//! Files are written whole or not at all: to a temporary neighbour first, then renamed.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::failure::Failure;

/// Writes to stdout. That the reader went away, as `head` does, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::file("write", Path::new("stdout"))(error))
        }
        _ => Ok(()),
    }
}

/// Reads at most `limit` bytes of a file.
pub(crate) fn read_up_to(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let failed = || Failure::file("read", path);
    let file = fs::File::open(path).map_err(failed())?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(failed())?;
    Ok(bytes)
}

/// Fails now where [`write_atomically`] would fail for want of a folder, so that long work is not done in vain.
pub(crate) fn check_destination(path: &Path) -> Result<(), Failure> {
    let failed = |reason: &str| Err(Failure::file("write", path)(io::Error::other(reason)));
    match fs::metadata(path) {
        // Renaming over a device node or a pipe would replace it for everybody.
        Ok(there) if !there.is_file() => failed("not a regular file"),
        Ok(_) => Ok(()),
        Err(_) if path.file_name().is_none() => failed("not a file name"),
        Err(_) if !folder_of(path).is_dir() => failed("its folder does not exist"),
        Err(_) => Ok(()),
    }
}

/// Lets `write` fill a temporary file and moves it to `path`. The temporary file ends in `extension`, for writers that
/// choose the format by it. On an error nothing is left behind.
pub(crate) fn write_atomically(
    path: &Path,
    extension: &str,
    write: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    check_destination(path)?;
    // A link is written through, not replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp.{extension}", std::process::id()));
    let temporary = folder_of(&target).join(name);
    let done = write(&temporary).and_then(|()| fs::rename(&temporary, &target).map_err(Failure::file("write", path)));
    if done.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Writes bytes atomically.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_atomically(path, "bin", |temporary| {
        let write = || {
            let mut file = fs::File::create(temporary)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(Failure::file("write", path))
    })
}

/// Writes a value as indented JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Failure::content(path, error))?;
    text.push(b'\n');
    write_bytes(path, &text)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
