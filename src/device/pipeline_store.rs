//! Compiled pipelines in a file, for back ends that hand them out (Vulkan): the next start compiles nothing anew.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::kept_file::{Magic, pack, read, write};

/// Marks a file of ours, and its format.
pub(crate) const MAGIC: Magic = *b"wattn pipelines1";

/// The state of the file that [`ContextOptions::with_pipeline_cache`](crate::ContextOptions::with_pipeline_cache) asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PipelineCacheState {
    /// Not asked for.
    Off,
    /// The back end hands out no compiled pipelines.
    Unsupported,
    /// There was no file yet.
    New,
    /// The driver was given this many bytes, and uses them if they are its own.
    Loaded {
        /// Bytes of the driver's data.
        bytes: usize,
    },
    /// There is a file, but not one that can be used: it is replaced by the next
    /// [`save_pipelines`](crate::Context::save_pipelines).
    Ignored {
        /// The file.
        path: PathBuf,
        /// The fault.
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
    /// The store of a device in a folder; `None` where the back end has no pipeline cache.
    pub(crate) fn open(device: &wgpu::Device, folder: &Path) -> (Option<Self>, PipelineCacheState) {
        let key = wgpu::util::pipeline_cache_key(&device.adapter_info());
        let Some(key) = key.filter(|_| device.features().contains(wgpu::Features::PIPELINE_CACHE)) else {
            return (None, PipelineCacheState::Unsupported);
        };
        let path = folder.join(key);
        let (data, state) = match read(&MAGIC, &path) {
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
        // SAFETY: `save` wrote this data, which came from `get_data`, under a name that is the adapter's key; `read` checked the mark, the
        // length and the checksum. wgpu compares its own header with the adapter, and the driver its header with its version. Anyone who can
        // write to the user's cache folder could run programs as the user anyway.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        (Some(Self { cache, path }), state)
    }

    pub(crate) fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes the file whole or not at all.
    pub(crate) fn save(&self) -> Result<()> {
        let Some(data) = self.cache.get_data() else { return Ok(()) };
        write(&self.path, &pack(&MAGIC, &data))
    }
}
