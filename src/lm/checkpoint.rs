//! Tensors in `*.safetensors` files: one file, or several with an index.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;

use super::error::{LmError, LmResult};
use super::matrix::{Elements, Matrix};

/// Bytes of the longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// Where the bytes of a file are.
#[derive(Debug)]
enum Source {
    File(PathBuf),
    Memory(&'static [u8]),
}

#[derive(Debug)]
struct Shard {
    source: Source,
    /// Bytes before the first tensor.
    header: u64,
    metadata: Metadata,
}

/// The tensors of a checkpoint, read one by one when they are asked for.
#[derive(Debug)]
pub struct Checkpoint {
    shards: Vec<Shard>,
    /// The shard of each tensor.
    places: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the files that `model.safetensors.index.json` names, in a folder.
    ///
    /// # Errors
    /// [`LmError::File`], [`LmError::Format`], [`LmError::Shard`], [`LmError::Truncated`].
    ///
    /// # Cost
    /// Reads the headers.
    pub fn open(folder: &Path) -> LmResult<Self> {
        let index = folder.join("model.safetensors.index.json");
        if !index.exists() {
            return Ok(Self::of_one(Shard::open(folder, "model.safetensors")?));
        }
        let text = fs::read_to_string(&index).map_err(|source| LmError::File { path: index.clone(), source })?;
        let format = |reason: String| LmError::Format { file: "model.safetensors.index.json".to_owned(), reason };
        let json: Value = serde_json::from_str(&text).map_err(|error| format(error.to_string()))?;
        let map = json.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| format("has no object `weight_map`".to_owned()))?;
        let mut checkpoint = Self { shards: Vec::new(), places: HashMap::new() };
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for (tensor, file) in map {
            let bad = |file: &str, reason| LmError::Shard { tensor: tensor.clone(), file: file.to_owned(), reason };
            let file = file.as_str().ok_or_else(|| bad(&file.to_string(), "which is no file name"))?;
            // An index comes from elsewhere: it must not reach out of its folder.
            if Path::new(file).components().count() != 1 || file.contains(['/', '\\']) || file == ".." {
                return Err(bad(file, "which is not a file of its folder"));
            }
            let number = match numbers.get(file) {
                Some(&number) => number,
                None if !folder.join(file).is_file() => return Err(bad(file, "which is not there")),
                None => {
                    checkpoint.shards.push(Shard::open(folder, file)?);
                    numbers.insert(file, checkpoint.shards.len() - 1);
                    checkpoint.shards.len() - 1
                }
            };
            if checkpoint.shards[number].metadata.info(tensor).is_none() {
                return Err(bad(file, "which does not hold it"));
            }
            checkpoint.places.insert(tensor.clone(), number);
        }
        Ok(checkpoint)
    }

    /// A `model.safetensors` in memory.
    ///
    /// # Errors
    /// [`LmError::Format`], [`LmError::Truncated`].
    pub fn from_static(bytes: &'static [u8]) -> LmResult<Self> {
        Ok(Self::of_one(Shard::new("model.safetensors".to_owned(), Source::Memory(bytes))?))
    }

    fn of_one(shard: Shard) -> Self {
        let places = shard.metadata.tensors().into_keys().map(|name| (name, 0)).collect();
        Self { shards: vec![shard], places }
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let infos = self.places.iter().filter_map(|(tensor, &shard)| self.shards[shard].metadata.info(tensor));
        infos.map(|info| (info.data_offsets.1 - info.data_offsets.0) as u64).sum()
    }

    /// Reads a matrix.
    ///
    /// # Errors
    /// [`LmError::MissingTensor`], [`LmError::TensorShape`], [`LmError::TensorDType`], [`LmError::File`].
    pub fn matrix(&self, tensor: &str, rows: u32, cols: u32) -> LmResult<Matrix> {
        let shape = [rows as usize, cols as usize];
        Ok(Matrix::new(shape[0], shape[1], self.elements(tensor, &shape)?))
    }

    /// Reads a vector, widened.
    ///
    /// # Errors
    /// Those of [`Checkpoint::matrix`].
    pub fn vector(&self, tensor: &str, len: u32) -> LmResult<Vec<f32>> {
        Ok(self.elements(tensor, &[len as usize])?.to_f32())
    }

    fn elements(&self, tensor: &str, shape: &[usize]) -> LmResult<Elements> {
        let missing = || LmError::MissingTensor { tensor: tensor.to_owned() };
        let shard = &self.shards[*self.places.get(tensor).ok_or_else(missing)?];
        let info = shard.metadata.info(tensor).ok_or_else(missing)?;
        if info.shape != shape {
            let (expected, actual) = (shape.to_vec(), info.shape.clone());
            return Err(LmError::TensorShape { tensor: tensor.to_owned(), expected, actual });
        }
        let len = shape.iter().product();
        Ok(match info.dtype {
            Dtype::F32 => Elements::F32(shard.read(info, vec![0.0f32; len])?),
            Dtype::F16 => Elements::F16(shard.read(info, vec![f16::ZERO; len])?),
            Dtype::BF16 => Elements::BF16(shard.read(info, vec![bf16::ZERO; len])?),
            other => {
                return Err(LmError::TensorDType { tensor: tensor.to_owned(), actual: other.to_string() });
            }
        })
    }
}

impl Shard {
    fn open(folder: &Path, name: &str) -> LmResult<Self> {
        Self::new(name.to_owned(), Source::File(folder.join(name)))
    }

    fn new(name: String, source: Source) -> LmResult<Self> {
        let format = |reason: String| LmError::Format { file: name.clone(), reason };
        let len = match &source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File(path) => {
                fs::metadata(path).map_err(|source| LmError::File { path: path.clone(), source })?.len()
            }
        };
        let mut prefix = [0; 8];
        if len < 8 {
            return Err(format(format!("holds {len} bytes, too few for the length of its header")));
        }
        source.read(0, &mut prefix)?;
        let json = u64::from_le_bytes(prefix);
        if json > MAX_HEADER || json > len - 8 {
            return Err(format(format!("its header claims {json} bytes, the file has {len}")));
        }
        let mut text = vec![0; json as usize]; // at most MAX_HEADER
        source.read(8, &mut text)?;
        let metadata: Metadata =
            serde_json::from_slice(&text).map_err(|error| format(format!("its header: {error}")))?;
        let header = 8 + json;
        for (tensor, info) in metadata.tensors() {
            let end = header.saturating_add(info.data_offsets.1 as u64);
            if end > len {
                return Err(LmError::Truncated { tensor, file: name, end, len });
            }
        }
        Ok(Self { source, header, metadata })
    }

    /// Fills `elements` with the tensor's bytes; the format is little-endian, as every platform of wgpu is.
    fn read<T: bytemuck::Pod>(&self, info: &TensorInfo, mut elements: Vec<T>) -> LmResult<Vec<T>> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut elements);
        // The metadata's own validation saw that offsets, shape and type agree.
        debug_assert_eq!(bytes.len(), info.data_offsets.1 - info.data_offsets.0);
        self.source.read(self.header + info.data_offsets.0 as u64, bytes)?;
        Ok(elements)
    }
}

impl Source {
    /// The caller saw that the range is in the file.
    fn read(&self, at: u64, to: &mut [u8]) -> LmResult<()> {
        match self {
            Self::Memory(bytes) => to.copy_from_slice(&bytes[at as usize..][..to.len()]),
            Self::File(path) => {
                let failed = |source| LmError::File { path: path.clone(), source };
                let mut file = fs::File::open(path).map_err(failed)?;
                file.seek(SeekFrom::Start(at)).map_err(failed)?;
                file.read_exact(to).map_err(failed)?;
            }
        }
        Ok(())
    }
}
