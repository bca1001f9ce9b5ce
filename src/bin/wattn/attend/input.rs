//! The tensors of a safetensors file, checked before any number is read.

use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use wattn::{AttentionShape, BlockSelection, DType, Element, HostBlocks, HostTensor};

use crate::failure::Failure;

/// The tensors of the file, before any number is read.
pub(super) struct Input<'a> {
    pub(super) path: &'a Path,
    pub(super) q: TensorView<'a>,
    pub(super) k: TensorView<'a>,
    pub(super) v: TensorView<'a>,
    pub(super) seq_lens_kv: Option<Vec<u32>>,
    blocks: Option<[TensorView<'a>; 2]>,
    /// From q, k and the last axis of v; whether the rest agrees is for the library to say.
    pub(super) shape: AttentionShape,
}

impl<'a> Input<'a> {
    pub(super) fn open(path: &'a Path, file: &SafeTensors<'a>) -> Result<Self, Failure> {
        let find = |name: &str| {
            let tensor = file.tensor(name).map_err(|_| Failure::content(path, format!("there is no tensor `{name}`")));
            tensor.and_then(|tensor| Ok((axes(path, name, tensor.shape())?, tensor)))
        };
        let ((q_shape, q), (k_shape, k), (v_shape, v)) = (find("q")?, find("k")?, find("v")?);
        for (name, tensor) in [("q", &q), ("k", &k), ("v", &v)] {
            if !matches!(tensor.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                let reason = format!("`{name}` is {:?}, expected F32, F16 or BF16", tensor.dtype());
                return Err(Failure::content(path, reason));
            }
        }
        let [batch_size, seq_len_q, num_q_heads, head_dim] = q_shape;
        let [_, seq_len_kv, num_kv_heads, _] = k_shape;
        let shape = AttentionShape {
            batch_size,
            seq_len_q,
            seq_len_kv,
            num_q_heads,
            num_kv_heads,
            head_dim,
            head_dim_v: v_shape[3],
        };
        // Reading another layout of the same size as if it were ours would give numbers without meaning.
        for (tensor, actual, expected) in [("k", k_shape, shape.k()), ("v", v_shape, shape.v())] {
            if actual != expected {
                return Err(Failure::content(path, wattn::Error::Shape { tensor, expected, actual }));
            }
        }
        let seq_lens_kv = match file.tensor("seq_lens_kv") {
            Ok(tensor) => Some(lengths(path, &tensor)?),
            Err(_) => None,
        };
        let blocks = file.tensor("block_indices").ok().zip(file.tensor("block_counts").ok());
        Ok(Self { path, q, k, v, seq_lens_kv, blocks: blocks.map(Into::into), shape })
    }

    pub(super) fn common_dtype(&self) -> Result<DType, Failure> {
        let expected = self.q.dtype();
        for (name, tensor) in [("k", &self.k), ("v", &self.v)] {
            if tensor.dtype() != expected {
                let reason = format!("`{name}` is {:?}, `q` is {expected:?}; --dtype converts all", tensor.dtype());
                return Err(Failure::content(self.path, reason));
            }
        }
        Ok(match expected {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => DType::F32,
        })
    }

    pub(super) fn load<T: Element>(&self, tensor: &TensorView<'_>) -> Result<HostTensor<T>, Failure> {
        let bytes = tensor.data();
        // Through f32, which is exact for all three, so that equal types keep their bits.
        let data = match tensor.dtype() {
            Dtype::F16 => pairs(bytes).map(|pair| T::from_f32(f16::from_le_bytes(pair).to_f32())).collect(),
            Dtype::BF16 => pairs(bytes).map(|pair| T::from_f32(bf16::from_le_bytes(pair).to_f32())).collect(),
            _ => words(bytes).map(|word| T::from_f32(f32::from_le_bytes(word))).collect(),
        };
        HostTensor::new(axes(self.path, "tensor", tensor.shape())?, data)
            .map_err(|error| Failure::content(self.path, error))
    }

    /// Entries of each list in the file, the last axis of `block_indices`.
    pub(super) fn max_blocks(&self) -> Result<u32, Failure> {
        Ok(axes(self.path, "block_indices", self.blocks()?[0].shape())?[3])
    }

    fn blocks(&self) -> Result<&[TensorView<'a>; 2], Failure> {
        let missing = "`block_indices` and `block_counts` are needed for --attention blocks";
        self.blocks.as_ref().ok_or_else(|| Failure::content(self.path, missing))
    }

    /// The lists of the file, checked.
    pub(super) fn load_blocks(&self, selection: &BlockSelection) -> Result<HostBlocks, Failure> {
        let refused = |error: wattn::Error| Failure::content(self.path, error);
        let [indices, counts] = self.blocks()?;
        let shape = axes(self.path, "block_indices", indices.shape())?;
        if counts.shape() != &indices.shape()[..3] {
            let (actual, expected) = (counts.shape(), &shape[..3]);
            let reason = format!("`block_counts` has shape {actual:?}, expected {expected:?}");
            return Err(Failure::content(self.path, reason));
        }
        let numbers = |name, tensor, lowest: i64| {
            let numbers = integers(self.path, name, tensor)?;
            match numbers.iter().find(|&&number| number < lowest) {
                Some(number) => Err(Failure::content(self.path, format!("`{name}` holds {number}"))),
                // -1 becomes `PADDING`; all else came from 32 bits.
                None => Ok(numbers.into_iter().map(|number| number as u32).collect()),
            }
        };
        let indices = numbers("block_indices", indices, -1)?;
        let blocks = HostBlocks::new(shape, indices, numbers("block_counts", counts, 0)?).map_err(refused)?;
        blocks.validate(selection, &self.shape, self.seq_lens_kv.as_deref()).map_err(refused)?;
        Ok(blocks)
    }

    /// A small file can ask for a large result (wide values, narrow queries, long lists): better an error than an abort.
    pub(super) fn check_memory(&self, list_entries: u64) -> Result<(), Failure> {
        let fits = |len: Option<usize>| len.is_some_and(|len| Vec::<f32>::new().try_reserve_exact(len).is_ok());
        let len = self.shape.out().iter().try_fold(1usize, |n, &axis| n.checked_mul(axis as usize));
        if !fits(len) {
            return Err(Failure::content(self.path, "the result does not fit into memory"));
        }
        let entries = usize::try_from(list_entries).ok();
        fits(entries).then_some(()).ok_or_else(|| Failure::content(self.path, "the lists do not fit into memory"))
    }
}

fn axes(path: &Path, name: &str, shape: &[usize]) -> Result<[u32; 4], Failure> {
    let [batch, seq, heads, dim] = *shape else {
        let reason = format!("`{name}` has {} axes, expected [batch, seq, head, dim]", shape.len());
        return Err(Failure::content(path, reason));
    };
    let mut axes = [0; 4];
    for (to, from) in axes.iter_mut().zip([batch, seq, heads, dim]) {
        *to = u32::try_from(from)
            .map_err(|_| Failure::content(path, format!("`{name}` has shape {shape:?}, an axis must be below 2^32")))?;
    }
    Ok(axes)
}

fn lengths(path: &Path, tensor: &TensorView<'_>) -> Result<Vec<u32>, Failure> {
    let refuse = |reason: String| Err(Failure::content(path, format!("`seq_lens_kv` {reason}")));
    if tensor.shape().len() != 1 {
        return refuse(format!("has {} axes, expected [batch]", tensor.shape().len()));
    }
    match integers(path, "seq_lens_kv", tensor)?.as_slice() {
        lens if lens.iter().all(|&len| len >= 0) => Ok(lens.iter().map(|&len| len as u32).collect()), // from 32 bits
        lens => {
            let negative = lens.iter().copied().min().unwrap_or_default();
            refuse(format!("holds {negative}, a length cannot be negative"))
        }
    }
}

/// The numbers of an I32 or U32 tensor.
fn integers(path: &Path, name: &str, tensor: &TensorView<'_>) -> Result<Vec<i64>, Failure> {
    match tensor.dtype() {
        Dtype::U32 => Ok(words(tensor.data()).map(|word| u32::from_le_bytes(word).into()).collect()),
        Dtype::I32 => Ok(words(tensor.data()).map(|word| i32::from_le_bytes(word).into()).collect()),
        other => Err(Failure::content(path, format!("`{name}` is {other:?}, expected I32 or U32"))),
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + Clone {
    bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]])
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> + Clone {
    bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]])
}
