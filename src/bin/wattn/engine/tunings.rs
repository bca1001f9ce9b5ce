//! The tilings that `wattn tune` measured, in the user's cache folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use wattn::Context;
use wattn::tune::{DeviceKey, TuningTable};

use super::cache_folder;
use crate::args::EngineArgs;
use crate::failure::Failure;
use crate::files;

/// Larger files are no tables.
const MOST_BYTES: u64 = 4 << 20;

/// The path of this user's table.
pub(crate) fn stored() -> Option<PathBuf> {
    Some(cache_folder()?.join("tuning.json"))
}

/// The table of a file.
pub(crate) fn read(path: &Path) -> Result<TuningTable, Failure> {
    TuningTable::from_json(&files::read_whole(path, MOST_BYTES)?).map_err(|error| Failure::content(path, error))
}

/// The user's table. An unusable table is reported and skipped, since no result depends on it.
pub(crate) fn read_stored() -> TuningTable {
    let Some(path) = stored() else { return TuningTable::new() };
    read(&path).unwrap_or_else(|failure| {
        if !matches!(&failure, Failure::File { source, .. } if source.kind() == ErrorKind::NotFound) {
            files::note(&format!("note: {} is ignored: {}", path.display(), failure.line()));
        }
        TuningTable::new()
    })
}

/// The device, with plans that take the tilings measured on it.
pub(super) fn apply(context: Context, args: &EngineArgs) -> Result<Context, Failure> {
    let table = match &args.tuning {
        Some(path) => read(path)?,
        None if args.no_tune || args.no_cache => return Ok(context),
        None => read_stored(),
    };
    Ok(context.with_tuning(table.tuning(&DeviceKey::of(&context))))
}
