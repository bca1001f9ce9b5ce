//! Compiled pipelines in a file, for back ends that hand them out (Vulkan): the next start compiles nothing anew.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Marks a file of ours, and its format.
const MAGIC: &[u8; 16] = b"wattn pipelines1";

/// Bytes before the driver's data: magic, length, checksum.
const HEADER: usize = 32;

/// What became of the file that [`ContextOptions::pipeline_cache`](crate::ContextOptions::pipeline_cache) asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PipelineCacheState {
    /// Not asked for.
    Off,
    /// The back end hands out no compiled pipelines.
    Unsupported,
    /// There was no file yet.
    New,
    /// So many bytes were handed to the driver, which takes them if they are its own.
    Loaded {
        /// Bytes of the driver's data.
        bytes: usize,
    },
    /// There is a file, but not one that can be used: it is replaced by the next
    /// [`save_pipelines`](crate::Context::save_pipelines).
    Ignored {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The driver's cache, and where it is kept.
#[derive(Debug)]
pub(crate) struct PipelineStore {
    cache: wgpu::PipelineCache,
    path: PathBuf,
}

impl PipelineStore {
    /// The store of a device in a folder; `None` where the back end has none.
    pub(crate) fn open(device: &wgpu::Device, folder: &Path) -> (Option<Self>, PipelineCacheState) {
        let key = wgpu::util::pipeline_cache_key(&device.adapter_info());
        let Some(key) = key.filter(|_| device.features().contains(wgpu::Features::PIPELINE_CACHE)) else {
            return (None, PipelineCacheState::Unsupported);
        };
        let path = folder.join(key);
        let (data, state) = match std::fs::read(&path).map(unpack) {
            Ok(Ok(data)) => {
                let bytes = data.len();
                (Some(data), PipelineCacheState::Loaded { bytes })
            }
            Ok(Err(reason)) => (None, PipelineCacheState::Ignored { path: path.clone(), reason: reason.to_owned() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (None, PipelineCacheState::New),
            Err(error) => (None, PipelineCacheState::Ignored { path: path.clone(), reason: error.to_string() }),
        };
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("wattn.pipelines"), data: data.as_deref(), fallback: true };
        // SAFETY: the data is what `get_data` gave to `save`, under a name that is the adapter's key: `unpack` saw our mark
        // before it, its whole length, and its checksum. wgpu compares its own header with the adapter, and the driver its
        // own with its version. Who can write to the user's cache folder could run programs as the user anyway.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        (Some(Self { cache, path }), state)
    }

    pub(crate) fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes the file whole or not at all.
    pub(crate) fn save(&self) -> Result<()> {
        let Some(data) = self.cache.get_data() else { return Ok(()) };
        let failed = |error: std::io::Error| Error::File { path: self.path.clone(), message: error.to_string() };
        let packed = pack(&data);
        if std::fs::read(&self.path).is_ok_and(|old| old == packed) {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let written = std::fs::write(&temporary, packed).and_then(|()| std::fs::rename(&temporary, &self.path));
        if written.is_err() {
            // Best effort: the first error is the one to report.
            let _ = std::fs::remove_file(&temporary);
        }
        written.map_err(failed)
    }
}

/// FNV-1a: against files that broke, not against people.
fn checksum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn pack(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u64;
    [MAGIC.as_slice(), &length.to_le_bytes(), &checksum(data).to_le_bytes(), data].concat()
}

/// The driver's data in a file.
fn unpack(file: Vec<u8>) -> core::result::Result<Vec<u8>, &'static str> {
    let word = |at: usize| file.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    if !file.starts_with(MAGIC) {
        return Err("it is no pipeline cache of this version");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_are_taken() {
        let data: Vec<u8> = (0..100).collect();
        let packed = pack(&data);
        assert_eq!(unpack(packed.clone()), Ok(data));
        for length in 0..packed.len() {
            assert!(unpack(packed[..length].to_vec()).is_err(), "{length} bytes");
        }
        for at in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 4;
            assert!(unpack(damaged).is_err(), "byte {at}");
        }
        assert_eq!(unpack(pack(&[])), Ok(vec![]));
    }
}
