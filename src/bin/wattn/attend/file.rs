//! A safetensors file: its header first, then one tensor after the other. Other tensors are ignored.

use std::fs;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use crate::failure::Failure;
use crate::files;

/// Bytes of the longest header that is accepted: a hundred thousand tensors.
const MOST_HEADER: u64 = 8 << 20;

/// Bytes that are read at a time: whole elements of every type.
const CHUNK: usize = 1 << 16;

/// The source of tensors.
enum Source {
    File(fs::File),
    /// A source that cannot seek, such as stdin: its bytes are all kept once the first tensor is read.
    Stream(Box<dyn Read>),
    Kept(Vec<u8>),
}

/// The header, and the source of the rest.
pub(super) struct TensorFile<'a> {
    pub(super) path: &'a Path,
    metadata: Metadata,
    /// Bytes before the first tensor.
    begin: u64,
    source: Source,
}

impl<'a> TensorFile<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self, Failure> {
        let failed = || Failure::file("read", path);
        let refused = |reason: &str| Failure::content(path, format!("not a safetensors file: {reason}"));
        let mut file = files::open(path)?;
        let mut length = Vec::new();
        file.by_ref().take(8).read_to_end(&mut length).map_err(failed())?;
        let length = <[u8; 8]>::try_from(length).map_err(|_| refused("it is shorter than 8 bytes"))?;
        let length = u64::from_le_bytes(length);
        if length > MOST_HEADER {
            return Err(refused(&format!("a header of {length} bytes, at most {MOST_HEADER} are read")));
        }
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header).map_err(failed())?;
        if header.len() as u64 != length {
            return Err(refused("its header is cut off"));
        }
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| refused(&error.to_string()))?;
        let begin = 8 + length;
        let source = match fs::metadata(path) {
            Ok(there) if there.is_file() && !files::is_std(path) => {
                if there.len() != begin + metadata.data_len() as u64 {
                    return Err(refused("its size is not what its header says"));
                }
                Source::File(fs::File::open(path).map_err(failed())?)
            }
            _ => Source::Stream(file),
        };
        Ok(Self { path, metadata, begin, source })
    }

    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// Number of bytes that are kept while tensors are read.
    pub(super) fn kept_bytes(&self) -> u64 {
        if matches!(self.source, Source::File(_)) { 0 } else { self.metadata.data_len() as u64 }
    }

    /// Hands a tensor's bytes to `take`, whole elements at a time.
    pub(super) fn read(&mut self, name: &str, mut take: impl FnMut(&[u8])) -> Result<(), Failure> {
        let failed = || Failure::file("read", self.path);
        let missing = || Failure::content(self.path, format!("there is no tensor `{name}`"));
        let (start, end) = self.metadata.info(name).ok_or_else(missing)?.data_offsets;
        if let Source::Stream(stream) = &mut self.source {
            let length = self.metadata.data_len();
            let mut kept = Vec::new();
            // One byte more, so that trailing data is noticed.
            stream.take(length as u64 + 1).read_to_end(&mut kept).map_err(failed())?;
            if kept.len() != length {
                return Err(Failure::content(
                    self.path,
                    "not a safetensors file: its size is not what its header says",
                ));
            }
            self.source = Source::Kept(kept);
        }
        match &mut self.source {
            Source::Stream(_) => unreachable!("it was kept"),
            Source::Kept(bytes) => take(&bytes[start..end]),
            Source::File(file) => {
                file.seek(SeekFrom::Start(self.begin + start as u64)).map_err(failed())?;
                let mut chunk = vec![0; CHUNK.min(end - start)];
                let mut left = end - start;
                while left > 0 {
                    let now = &mut chunk[..CHUNK.min(left)];
                    file.read_exact(now).map_err(failed())?;
                    take(now);
                    left -= now.len();
                }
            }
        }
        Ok(())
    }
}
