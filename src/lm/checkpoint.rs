//! Tensors in `*.safetensors` files: one file, or several with an index.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;

use super::error::{LmError, LmResult};
use super::matrix::{Elements, Matrix};
use super::{files, json};

/// Limit on the headers of all files of a checkpoint: a hundred bytes for each of forty thousand tensors.
const MOST_HEADERS: u64 = 4 << 20;

const ONE_FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

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

/// The tensors of a checkpoint, each read when it is needed.
#[derive(Debug)]
pub struct Checkpoint {
    shards: Vec<Shard>,
    /// The shard of each tensor.
    places: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens `model.safetensors` in a folder, or else the files that `model.safetensors.index.json` names. Tensors are looked up in the files
    /// themselves, whatever the index says.
    ///
    /// # Errors
    /// [`LmError::File`], [`LmError::TooLong`], [`LmError::Format`], [`LmError::Shard`], [`LmError::Truncated`].
    ///
    /// # Cost
    /// Reads the headers.
    pub fn open(folder: &Path) -> LmResult<Self> {
        let mut room = MOST_HEADERS;
        let index = folder.join(INDEX);
        if folder.join(ONE_FILE).is_file() || !index.exists() {
            return Ok(Self::of_one(Shard::open(folder, ONE_FILE, &mut room)?));
        }
        let json = json::object(INDEX, &files::text(&index, files::MOST_JSON)?)?;
        let map = json.get("weight_map").and_then(Value::as_object);
        let no_map = || LmError::Format { file: INDEX.to_owned(), reason: "has no object `weight_map`".to_owned() };
        let mut checkpoint = Self { shards: Vec::new(), places: HashMap::new() };
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut told = Vec::new();
        for (tensor, file) in map.ok_or_else(no_map)? {
            let bad = |file: &str, reason| LmError::Shard { tensor: tensor.clone(), file: file.to_owned(), reason };
            let file = file.as_str().ok_or_else(|| bad(&json::shown(file), "which is no file name"))?;
            // An index comes from elsewhere: its names must not lead out of the folder.
            if Path::new(file).components().count() != 1 || file.contains(['/', '\\']) || file == ".." {
                return Err(bad(file, "which is not a file of its folder"));
            }
            let number = match numbers.get(file) {
                Some(&number) => number,
                None if !folder.join(file).exists() => return Err(bad(file, "which is not there")),
                None => {
                    checkpoint.shards.push(Shard::open(folder, file, &mut room)?);
                    numbers.insert(file, checkpoint.shards.len() - 1);
                    checkpoint.shards.len() - 1
                }
            };
            told.push((tensor, number));
        }
        // In the order of their names; the last file counts where the index does not name one.
        for &number in numbers.values() {
            checkpoint.places.extend(checkpoint.shards[number].tensors().map(|tensor| (tensor, number)));
        }
        for (tensor, number) in told {
            if checkpoint.shards[number].metadata.info(tensor).is_some() {
                checkpoint.places.insert(tensor.clone(), number);
            }
        }
        Ok(checkpoint)
    }

    /// A `model.safetensors` in memory.
    ///
    /// # Errors
    /// [`LmError::Format`], [`LmError::Truncated`].
    pub fn from_static(bytes: &'static [u8]) -> LmResult<Self> {
        let mut room = MOST_HEADERS;
        Ok(Self::of_one(Shard::new(ONE_FILE.to_owned(), Source::Memory(bytes), &mut room)?))
    }

    fn of_one(shard: Shard) -> Self {
        let places = shard.tensors().map(|tensor| (tensor, 0)).collect();
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
    /// The errors of [`Checkpoint::matrix`].
    pub fn vector(&self, tensor: &str, len: u32) -> LmResult<Vec<f32>> {
        Ok(self.elements(tensor, &[len as usize])?.to_f32())
    }

    /// Whether there is a tensor.
    pub(super) fn has(&self, tensor: &str) -> bool {
        self.find(tensor).is_some()
    }

    /// The shard and the description of a tensor. A name that begins with `model.` is also looked up without it, since models without a head
    /// are saved that way.
    fn find(&self, tensor: &str) -> Option<(&Shard, &TensorInfo)> {
        let of = |tensor: &str| {
            let shard = &self.shards[*self.places.get(tensor)?];
            Some((shard, shard.metadata.info(tensor)?))
        };
        of(tensor).or_else(|| of(tensor.strip_prefix("model.")?))
    }

    /// Checks that a tensor exists, in a type that is read, and in the right shape; returns its bytes.
    pub(super) fn check(&self, tensor: &str, shape: &[usize]) -> LmResult<u64> {
        let (_, info) = self.checked(tensor, shape)?;
        Ok((info.data_offsets.1 - info.data_offsets.0) as u64)
    }

    fn checked(&self, tensor: &str, shape: &[usize]) -> LmResult<(&Shard, &TensorInfo)> {
        let missing = || LmError::MissingTensor { tensor: tensor.to_owned() };
        let (shard, info) = self.find(tensor).ok_or_else(missing)?;
        if info.shape != shape {
            let (expected, actual) = (shape.to_vec(), info.shape.clone());
            return Err(LmError::TensorShape { tensor: tensor.to_owned(), expected, actual });
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(LmError::TensorDType { tensor: tensor.to_owned(), actual: info.dtype.to_string() });
        }
        Ok((shard, info))
    }

    fn elements(&self, tensor: &str, shape: &[usize]) -> LmResult<Elements> {
        let (shard, info) = self.checked(tensor, shape)?;
        let len = shape.iter().product();
        Ok(match info.dtype {
            Dtype::F16 => Elements::F16(shard.read(info, vec![f16::ZERO; len])?),
            Dtype::BF16 => Elements::BF16(shard.read(info, vec![bf16::ZERO; len])?),
            Dtype::F32 => Elements::F32(shard.read(info, vec![0.0f32; len])?),
            other => unreachable!("{other:?} has been refused"),
        })
    }
}

impl Shard {
    fn open(folder: &Path, name: &str, room: &mut u64) -> LmResult<Self> {
        Self::new(name.to_owned(), Source::File(folder.join(name)), room)
    }

    /// Reads the header, which may take up to `room` bytes.
    fn new(name: String, source: Source, room: &mut u64) -> LmResult<Self> {
        let format = |reason: String| LmError::Format { file: name.clone(), reason };
        let len = match &source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File(path) => files::len(path)?,
        };
        let mut prefix = [0; 8];
        if len < 8 {
            return Err(format(format!("holds {len} bytes, too few for the length of its header")));
        }
        source.read(0, &mut prefix)?;
        let json = u64::from_le_bytes(prefix);
        if json > len - 8 {
            return Err(format(format!("its header claims {json} bytes, the file has {len}")));
        }
        if json > *room {
            return Err(format(format!("its header has {json} bytes; headers have {MOST_HEADERS} together at most")));
        }
        *room -= json;
        let mut text = vec![0; json as usize]; // at most the room
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

    /// Names of the tensors.
    fn tensors(&self) -> impl Iterator<Item = String> {
        self.metadata.tensors().into_keys()
    }

    /// Fills `elements` with the tensor's bytes; the format is little-endian, as every platform of wgpu is.
    fn read<T: bytemuck::Pod>(&self, info: &TensorInfo, mut elements: Vec<T>) -> LmResult<Vec<T>> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut elements);
        // The metadata's validation made sure that offsets, shape and type agree.
        debug_assert_eq!(bytes.len(), info.data_offsets.1 - info.data_offsets.0);
        self.source.read(self.header + info.data_offsets.0 as u64, bytes)?;
        Ok(elements)
    }
}

impl Source {
    /// The caller made sure that the range is in the file.
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
