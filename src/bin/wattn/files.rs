//! Files, stdin and stdout, which `-` stands for. Files are written whole or not at all: to a temporary neighbour first, then
//! renamed.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::failure::Failure;

/// `--quiet`.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether a file goes to stdout, so that texts go to stderr.
static STDOUT_TAKEN: AtomicBool = AtomicBool::new(false);

/// Number of links followed before they count as a circle.
const MOST_LINKS: usize = 40;

/// Leaves out notes, statistics and progress.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Whether a path stands for stdin or stdout.
pub(crate) fn is_std(path: &Path) -> bool {
    path == Path::new("-")
}

/// Writes to stdout, or to stderr where a file goes to stdout. A reader that closed the pipe, as `head` does, is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    if STDOUT_TAKEN.load(Ordering::Relaxed) {
        note(text.trim_end_matches('\n'));
        return Ok(());
    }
    to_stdout(text.as_bytes())
}

/// [`print`], unless the run is quiet: the output file has the same and more.
pub(crate) fn tell(text: &str) -> Result<(), Failure> {
    if is_quiet() { Ok(()) } else { print(text) }
}

/// Writes a line to stderr, unless the run is quiet. A failure to write cannot be reported.
pub(crate) fn note(line: &str) {
    if !is_quiet() {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

fn to_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::file("write", Path::new("stdout"))(error))
        }
        _ => Ok(()),
    }
}

/// A file, or stdin.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if is_std(path) {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(fs::File::open(path).map_err(Failure::file("read", path))?))
}

/// Reads at most `limit` bytes of a file.
pub(crate) fn read_up_to(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    open(path)?.take(limit).read_to_end(&mut bytes).map_err(Failure::file("read", path))?;
    Ok(bytes)
}

/// Reads a file of at most `most` bytes.
pub(crate) fn read_whole(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let bytes = read_up_to(path, most + 1)?;
    if bytes.len() as u64 > most {
        return Err(Failure::content(path, format!("is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// Fails early where an output could not be written, or would overwrite an input or another output, so that no long work is lost. Each path
/// has the name of its option. Where an output is stdout, texts go to stderr from now on.
pub(crate) fn check_outputs(
    inputs: &[(&str, Option<&Path>)],
    outputs: &[(&str, Option<&Path>)],
) -> Result<(), Failure> {
    let given = |paths: &[(&str, Option<&Path>)]| {
        let given = paths.iter().filter_map(|&(name, path)| Some((name.to_owned(), path?.to_owned())));
        given.collect::<Vec<(String, PathBuf)>>()
    };
    let mut taken = given(inputs);
    taken.retain(|(_, path)| !is_std(path));
    for (name, path) in given(outputs) {
        check_destination(&path)?;
        let place = target_of(&path);
        if let Some((other, _)) = taken.iter().find(|(_, other)| target_of(other) == place) {
            let message = format!("{name} and {other} are the same file, {}", path.display());
            return Err(Failure::Usage(message));
        }
        if is_std(&path) {
            STDOUT_TAKEN.store(true, Ordering::Relaxed);
        }
        taken.push((name, path));
    }
    Ok(())
}

/// Fails early where [`write_atomically`] would fail for lack of a folder.
pub(crate) fn check_destination(path: &Path) -> Result<(), Failure> {
    let failed = |reason: &str| Err(Failure::file("write", path)(io::Error::other(reason)));
    if is_std(path) {
        return Ok(());
    }
    let target = target_of(path);
    match fs::metadata(&target) {
        // Renaming would replace a device node or a pipe for everybody.
        Ok(there) if !there.is_file() => failed("not a regular file"),
        Ok(there) if there.permissions().readonly() => failed("it is read-only"),
        Ok(_) => Ok(()),
        Err(_) if target.file_name().is_none() => failed("not a file name"),
        Err(_) if !folder_of(&target).is_dir() => failed("its folder does not exist"),
        Err(_) => Ok(()),
    }
}

/// The file that a path leads to, existing or not: links are followed, not replaced.
fn target_of(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            Ok(next) => target = folder_of(&target).join(next),
            Err(_) => break,
        }
    }
    match (fs::canonicalize(folder_of(&target)), target.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => target,
    }
}

/// Lets `write` fill a temporary file and moves it to `path`. The temporary file ends in `extension`, for writers that
/// choose the format by it. On an error nothing is left behind. A file that is there keeps its mode.
pub(crate) fn write_atomically(
    path: &Path,
    extension: &str,
    write: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    check_destination(path)?;
    let failed = || Failure::file("write", path);
    let suffix = format!(".tmp.{extension}");
    let mut builder = tempfile::Builder::new();
    builder.suffix(&suffix);
    if is_std(path) {
        let temporary = builder.tempfile().map_err(failed())?;
        write(temporary.path())?;
        return to_stdout(&fs::read(temporary.path()).map_err(failed())?);
    }
    let target = target_of(path);
    let prefix = format!(".{}.", target.file_name().unwrap_or_default().to_string_lossy());
    builder.prefix(&prefix);
    // The mode of a new file, with the user's mask applied.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder_of(&target)).map_err(failed())?;
    write(temporary.path())?;
    if let Ok(there) = fs::metadata(&target) {
        fs::set_permissions(temporary.path(), there.permissions()).map_err(failed())?;
    }
    // A power failure must not leave an empty file under the name.
    fs::File::open(temporary.path()).and_then(|file| file.sync_all()).map_err(failed())?;
    temporary.persist(&target).map_err(|error| failed()(error.error))?;
    Ok(())
}

/// Writes bytes atomically, or to stdout.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if is_std(path) {
        return to_stdout(bytes);
    }
    write_atomically(path, "bin", |temporary| fs::write(temporary, bytes).map_err(Failure::file("write", path)))
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
