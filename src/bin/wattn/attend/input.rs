//! The tensors of a safetensors file, checked before any number is read.

use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use wattn::{AttentionShape, BlockListSpec, DType, Element, HostBlockLists, HostTensor};

use super::file::TensorFile;
use crate::failure::Failure;

/// The tensors of the file.
pub(super) struct Input<'a> {
    pub(super) path: &'a Path,
    file: TensorFile<'a>,
    pub(super) seq_lens_kv: Option<Vec<u32>>,
    /// The shape of q and k, and of the last axis of v; the library checks the other axes.
    pub(super) shape: AttentionShape,
}

impl<'a> Input<'a> {
    /// Reads the header.
    pub(super) fn open(path: &'a Path) -> Result<Self, Failure> {
        let file = TensorFile::open(path)?;
        let [q_shape, k_shape, v_shape] = ["q", "k", "v"].map(|name| {
            let info = tensor(&file, name)?;
            Ok::<_, Failure>((axes(path, name, &info.shape)?, info.dtype))
        });
        let ((q_shape, q), (k_shape, k), (v_shape, v)) = (q_shape?, k_shape?, v_shape?);
        for (name, dtype) in [("q", q), ("k", k), ("v", v)] {
            float_dtype(path, name, dtype)?;
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
        // Another layout of the same size would be read as meaningless numbers.
        for (tensor, actual, expected) in [("k", k_shape, shape.k()), ("v", v_shape, shape.v())] {
            if actual != expected {
                return Err(Failure::content(path, wattn::Error::Shape { tensor, expected, actual }));
            }
        }
        if let Some(lens) = file.info("seq_lens_kv") {
            let refuse = |reason: String| Err(Failure::content(path, format!("`seq_lens_kv` {reason}")));
            check_integers(path, "seq_lens_kv", lens.dtype)?;
            match lens.shape[..] {
                [len] if len == batch_size as usize => {}
                [len] => return refuse(format!("holds {len} lengths, there are {batch_size} sequences")),
                _ => return refuse(format!("has {} axes, expected [batch]", lens.shape.len())),
            }
        }
        Ok(Self { path, file, seq_lens_kv: None, shape })
    }

    pub(super) fn common_dtype(&self) -> Result<DType, Failure> {
        let expected = tensor(&self.file, "q")?.dtype;
        for name in ["k", "v"] {
            let dtype = tensor(&self.file, name)?.dtype;
            if dtype != expected {
                let reason = format!("`{name}` is {dtype:?}, `q` is {expected:?}; --dtype converts all");
                return Err(Failure::content(self.path, reason));
            }
        }
        float_dtype(self.path, "q", expected)
    }

    /// The type of a tensor that comes by name.
    pub(super) fn float_dtype(&self, name: &str) -> Result<DType, Failure> {
        float_dtype(self.path, name, tensor(&self.file, name)?.dtype)
    }

    /// The numbers of a tensor that comes by name, of at most four axes: those missing in front have size 1.
    pub(super) fn load_any<T: Element>(&mut self, name: &str) -> Result<HostTensor<T>, Failure> {
        self.float_dtype(name)?;
        let given = &tensor(&self.file, name)?.shape;
        let mut shape = vec![1; 4usize.saturating_sub(given.len())];
        shape.extend(given);
        let shape = axes(self.path, name, &shape)?;
        self.read_numbers(name, shape)
    }

    /// The numbers of q, k or v.
    pub(super) fn load<T: Element>(&mut self, name: &str) -> Result<HostTensor<T>, Failure> {
        let shape = axes(self.path, name, &tensor(&self.file, name)?.shape)?;
        self.read_numbers(name, shape)
    }

    fn read_numbers<T: Element>(&mut self, name: &str, shape: [u32; 4]) -> Result<HostTensor<T>, Failure> {
        let info = tensor(&self.file, name)?;
        let dtype = info.dtype;
        let mut data = Vec::with_capacity(info.shape.iter().product());
        self.file.read(name, |bytes| match dtype {
            // Conversion through f32 is exact for all three types, so that equal types keep their bits.
            Dtype::F16 => data.extend(words(bytes).map(|word| T::from_f32(f16::from_le_bytes(word).to_f32()))),
            Dtype::BF16 => data.extend(words(bytes).map(|word| T::from_f32(bf16::from_le_bytes(word).to_f32()))),
            Dtype::F32 => data.extend(words(bytes).map(|word| T::from_f32(f32::from_le_bytes(word)))),
            other => unreachable!("{other:?} has been refused"),
        })?;
        HostTensor::new(shape, data).map_err(|error| Failure::content(self.path, error))
    }

    /// Reads the lengths, if the file has them.
    pub(super) fn load_lengths(&mut self) -> Result<(), Failure> {
        if self.file.info("seq_lens_kv").is_some() {
            let most = self.shape.seq_len_kv;
            let rule = format!("must be from 0 to seq_len_kv = {most}");
            self.seq_lens_kv = Some(self.integers("seq_lens_kv", 0..=most.into(), &rule)?);
        }
        Ok(())
    }

    /// Entries of each list in the file, the last axis of `block_indices`.
    pub(super) fn max_blocks(&self) -> Result<u32, Failure> {
        Ok(self.list_axes()?[3])
    }

    /// Entries of all lists in the file, and counts.
    pub(super) fn list_entries(&self) -> Result<u64, Failure> {
        let [batch, sets, q_blocks, max_blocks] = self.list_axes()?.map(u64::from);
        Ok([batch, sets, q_blocks, max_blocks + 1].into_iter().fold(1, u64::saturating_mul))
    }

    /// The shape of `block_indices`, with which `block_counts` agrees.
    fn list_axes(&self) -> Result<[u32; 4], Failure> {
        let (Some(indices), Some(counts)) = (self.file.info("block_indices"), self.file.info("block_counts")) else {
            let missing = "`block_indices` and `block_counts` are needed for --attention blocks";
            return Err(Failure::content(self.path, missing));
        };
        let shape = axes(self.path, "block_indices", &indices.shape)?;
        if counts.shape != indices.shape[..3] {
            let (actual, expected) = (&counts.shape, &shape[..3]);
            let reason = format!("`block_counts` has shape {actual:?}, expected {expected:?}");
            return Err(Failure::content(self.path, reason));
        }
        check_integers(self.path, "block_indices", indices.dtype)?;
        check_integers(self.path, "block_counts", counts.dtype)?;
        Ok(shape)
    }

    /// The checked lists of the file.
    pub(super) fn load_blocks(&mut self, selection: &BlockListSpec) -> Result<HostBlockLists, Failure> {
        let shape = self.list_axes()?;
        // -1 becomes `PADDING`, the same bits in U32.
        let indices =
            self.integers("block_indices", -1..=u32::MAX.into(), "must be the first key of a block, or -1")?;
        let counts = self.integers("block_counts", 0..=u32::MAX.into(), "must be how many blocks are listed")?;
        let blocks = HostBlockLists::new(shape, indices, counts);
        let checked = blocks.and_then(|blocks| {
            blocks.validate(selection, &self.shape, self.seq_lens_kv.as_deref())?;
            Ok(blocks)
        });
        checked.map_err(|error| Failure::content(self.path, error))
    }

    /// The numbers of a tensor of integers, cut to 32 bits.
    fn integers(
        &mut self,
        name: &str,
        range: core::ops::RangeInclusive<i128>,
        rule: &str,
    ) -> Result<Vec<u32>, Failure> {
        let dtype = tensor(&self.file, name)?.dtype;
        let mut numbers = Vec::new();
        let mut wrong = None;
        self.file.read(name, |bytes| {
            each_integer(dtype, bytes, |number| {
                if !range.contains(&number) && wrong.is_none() {
                    wrong = Some((numbers.len(), number));
                }
                numbers.push(number as u32); // the number is in range
            });
        })?;
        match wrong {
            None => Ok(numbers),
            Some((index, number)) => Err(Failure::content(self.path, format!("`{name}[{index}]` = {number}: {rule}"))),
        }
    }

    /// Checks that the tensors and the results fit into memory, before anything is allocated: a small file can ask for a large result (wide
    /// values, narrow queries, long lists), and a file with holes for larger inputs than memory.
    pub(super) fn check_memory(&self, dtype: DType, list_entries: u64) -> Result<(), Failure> {
        let elements = |shape: [u32; 4]| shape.iter().fold(1u64, |n, &axis| n.saturating_mul(axis.into()));
        let AttentionShape { head_dim_v, .. } = self.shape;
        let inputs = [self.shape.q(), self.shape.k(), self.shape.v()].map(elements).into_iter();
        let inputs = inputs.fold(0, u64::saturating_add).saturating_mul(dtype.size_bytes());
        let results = elements(self.shape.out()).saturating_add(elements(self.shape.out()) / u64::from(head_dim_v));
        let needed = [self.file.kept_bytes(), inputs, results.saturating_mul(4), list_entries.saturating_mul(4)];
        let needed = needed.into_iter().fold(0, u64::saturating_add);
        let fits = usize::try_from(needed).is_ok_and(|len| Vec::<u8>::new().try_reserve_exact(len).is_ok());
        let refused =
            || Failure::content(self.path, format!("tensors and results do not fit into memory: {needed} bytes"));
        fits.then_some(()).ok_or_else(refused)
    }
}

fn tensor<'a>(file: &'a TensorFile<'_>, name: &str) -> Result<&'a TensorInfo, Failure> {
    file.info(name).ok_or_else(|| Failure::content(file.path, format!("there is no tensor `{name}`")))
}

fn float_dtype(path: &Path, name: &str, dtype: Dtype) -> Result<DType, Failure> {
    match dtype {
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::BF16),
        Dtype::F32 => Ok(DType::F32),
        other => Err(Failure::content(path, format!("`{name}` is {other:?}, expected F32, F16 or BF16"))),
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

fn check_integers(path: &Path, name: &str, dtype: Dtype) -> Result<(), Failure> {
    use Dtype::{I8, I16, I32, I64, U8, U16, U32, U64};
    match dtype {
        I8 | U8 | I16 | U16 | I32 | U32 | I64 | U64 => Ok(()),
        other => Err(Failure::content(path, format!("`{name}` is {other:?}, expected integers of 8 to 64 bits"))),
    }
}

/// Hands on the numbers of a tensor of integers.
fn each_integer(dtype: Dtype, bytes: &[u8], mut take: impl FnMut(i128)) {
    match dtype {
        Dtype::I8 => words(bytes).for_each(|word| take(i8::from_le_bytes(word).into())),
        Dtype::U8 => words(bytes).for_each(|word| take(u8::from_le_bytes(word).into())),
        Dtype::I16 => words(bytes).for_each(|word| take(i16::from_le_bytes(word).into())),
        Dtype::U16 => words(bytes).for_each(|word| take(u16::from_le_bytes(word).into())),
        Dtype::I32 => words(bytes).for_each(|word| take(i32::from_le_bytes(word).into())),
        Dtype::U32 => words(bytes).for_each(|word| take(u32::from_le_bytes(word).into())),
        Dtype::I64 => words(bytes).for_each(|word| take(i64::from_le_bytes(word).into())),
        Dtype::U64 => words(bytes).for_each(|word| take(u64::from_le_bytes(word).into())),
        other => unreachable!("{other:?} was refused"),
    }
}

/// The elements, `size` bytes each.
fn words<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; SIZE]> {
    bytes.as_chunks::<SIZE>().0.iter().copied()
}
