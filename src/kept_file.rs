//! Files that the library keeps for later starts: written whole or not at all, read only if they are whole.

use std::io::{self, Read as _};
use std::path::Path;

use crate::{Error, Result};

/// Marks a kind of file, and its format.
pub(crate) type Magic = [u8; 16];

/// Bytes before the data: magic, length, checksum.
const HEADER: usize = 32;

/// FNV-1a: detects damaged files, not tampering.
pub(crate) fn checksum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

pub(crate) fn pack(magic: &Magic, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u64;
    [magic.as_slice(), &length.to_le_bytes(), &checksum(data).to_le_bytes(), data].concat()
}

/// Limit on a file's data: compiled pipelines of hundreds of variants take a few MiB.
const MOST_DATA: u64 = 256 << 20;

/// The data of the file at a path. Reads only the beginning unless the file is whole and the library's own.
pub(crate) fn read(magic: &Magic, path: &Path) -> io::Result<core::result::Result<Vec<u8>, &'static str>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(HEADER as u64).read_to_end(&mut bytes)?;
    if bytes.starts_with(magic) && length <= HEADER as u64 + MOST_DATA {
        file.take(length).read_to_end(&mut bytes)?;
    } else if bytes.starts_with(magic) {
        return Ok(Err("it is too large"));
    }
    Ok(unpack(magic, &bytes))
}

/// The data in a file.
pub(crate) fn unpack(magic: &Magic, file: &[u8]) -> core::result::Result<Vec<u8>, &'static str> {
    let word = |at: usize| file.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    if !file.starts_with(magic) {
        return Err("it is no file of this version");
    }
    let (Some(length), Some(sum)) = (word(16), word(24)) else { return Err("it is cut short") };
    let data = &file[HEADER..];
    if data.len() as u64 != length {
        return Err("it is cut short");
    }
    if checksum(data) != sum {
        return Err("its checksum is wrong");
    }
    Ok(data.to_vec())
}

/// Writes a file whole or not at all, and makes its folder; a file that already holds this data is left alone.
pub(crate) fn write(path: &Path, packed: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| Error::File { path: path.to_owned(), message: error.to_string() };
    let as_long = std::fs::metadata(path).is_ok_and(|old| old.is_file() && old.len() == packed.len() as u64);
    if as_long && std::fs::read(path).is_ok_and(|old| old == packed) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = std::fs::write(&temporary, packed).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: Magic = *b"a kind of file 1";

    #[test]
    fn only_whole_files_are_taken() {
        let data: Vec<u8> = (0..100).collect();
        let packed = pack(&MAGIC, &data);
        assert_eq!(unpack(&MAGIC, &packed), Ok(data));
        for length in 0..packed.len() {
            assert!(unpack(&MAGIC, &packed[..length]).is_err(), "{length} bytes");
        }
        for at in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 4;
            assert!(unpack(&MAGIC, &damaged).is_err(), "byte {at}");
        }
        // The same through a path; a file with holes is rejected before its data is read.
        let file = tempfile::NamedTempFile::new().unwrap();
        for length in [0, 16, 32, packed.len() - 1, packed.len()] {
            std::fs::write(file.path(), &packed[..length]).unwrap();
            assert_eq!(read(&MAGIC, file.path()).unwrap(), unpack(&MAGIC, &packed[..length]), "{length} bytes");
        }
        file.as_file().set_len(1 << 40).unwrap();
        assert_eq!(read(&MAGIC, file.path()).unwrap(), Err("it is too large"));
        file.as_file().set_len(0).unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        assert_eq!(read(&MAGIC, file.path()).unwrap(), Err("it is no file of this version"));
        assert_eq!(unpack(&MAGIC, &pack(&MAGIC, &[])), Ok(vec![]));
        assert!(unpack(b"a kind of file 2", &packed).is_err());
    }
}
