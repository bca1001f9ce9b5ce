//! Strided views over the caller's buffers, and tensors in host memory. Axes are always `[batch, seq, head, dim]`.

use crate::{DType, Element, Error, Result};

/// Where the elements of a `[batch, seq, head, dim]` tensor lie: strides and offset in elements.
///
/// The dim axis is contiguous (stride 1). The other strides and the offset are multiples of 4, because the shaders
/// load four elements at a time. A broadcast axis has stride 0 (inputs only).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// `[batch, seq, head, dim]`.
    pub shape: [u32; 4],
    /// Elements from one index to the next along batch, seq and head.
    pub strides: [u64; 3],
    /// Elements before the first one.
    pub offset: u64,
}

impl Layout {
    /// Contiguous with the tokens outermost: `[batch, seq, head, dim]` in memory.
    #[must_use]
    pub const fn seq_major(batch: u32, seq: u32, heads: u32, dim: u32) -> Self {
        let head = dim as u64;
        let token = head * heads as u64;
        Self { shape: [batch, seq, heads, dim], strides: [token * seq as u64, token, head], offset: 0 }
    }

    /// Contiguous with the heads outermost: `[batch, head, seq, dim]` in memory, as most KV caches are.
    #[must_use]
    pub const fn head_major(batch: u32, seq: u32, heads: u32, dim: u32) -> Self {
        let token = dim as u64;
        let head = token * seq as u64;
        Self { shape: [batch, seq, heads, dim], strides: [head * heads as u64, token, head], offset: 0 }
    }

    /// The same layout, `offset` elements further.
    #[must_use]
    pub const fn with_offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Number of elements.
    #[must_use]
    pub fn num_elements(&self) -> u64 {
        self.shape.iter().map(|&n| u64::from(n)).product()
    }

    /// One past the last element that the tensor touches, counted from the start of the buffer; `None` when that
    /// does not fit 64 bits. The offset when the tensor is empty.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        let mut end = self.offset;
        if self.num_elements() == 0 {
            return Some(end);
        }
        for (&n, &stride) in self.shape[..3].iter().zip(&self.strides) {
            end = end.checked_add(u64::from(n - 1).checked_mul(stride)?)?;
        }
        end.checked_add(u64::from(self.shape[3]))
    }
}

/// A tensor that the GPU reads.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub(crate) buffer: &'a wgpu::Buffer,
    pub(crate) dtype: DType,
    pub(crate) layout: Layout,
}

impl<'a> TensorView<'a> {
    /// Takes `buffer` as a tensor. `bind` or `read` finds its errors.
    #[must_use]
    pub const fn new(buffer: &'a wgpu::Buffer, dtype: DType, layout: Layout) -> Self {
        Self { buffer, dtype, layout }
    }

    /// The element type.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// The layout.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }
}

/// A tensor that the GPU writes. Not `Copy`, so that one view is not given to two writers by accident.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    pub(crate) buffer: &'a wgpu::Buffer,
    pub(crate) dtype: DType,
    pub(crate) layout: Layout,
}

impl<'a> TensorViewMut<'a> {
    /// Takes `buffer` as a tensor to be written. `bind` finds its errors.
    #[must_use]
    pub const fn new(buffer: &'a wgpu::Buffer, dtype: DType, layout: Layout) -> Self {
        Self { buffer, dtype, layout }
    }

    /// The same tensor, for reading.
    #[must_use]
    pub const fn as_view(&self) -> TensorView<'a> {
        TensorView { buffer: self.buffer, dtype: self.dtype, layout: self.layout }
    }
}

/// A tensor in host memory whose elements are of any type.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum AnyHostTensor<'a> {
    /// f32.
    F32(&'a HostTensor<f32>),
    /// f16.
    F16(&'a HostTensor<half::f16>),
    /// bf16.
    BF16(&'a HostTensor<half::bf16>),
}

impl AnyHostTensor<'_> {
    /// Its sizes.
    #[must_use]
    pub const fn shape(&self) -> [u32; 4] {
        match self {
            Self::F32(tensor) => tensor.shape,
            Self::F16(tensor) => tensor.shape,
            Self::BF16(tensor) => tensor.shape,
        }
    }

    /// Its element type.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::BF16(_) => DType::BF16,
        }
    }

    /// An element, by its place in memory.
    ///
    /// # Panics
    /// Past the last element.
    #[must_use]
    pub fn get(&self, at: usize) -> f32 {
        match self {
            Self::F32(tensor) => tensor.data[at],
            Self::F16(tensor) => tensor.data[at].to_f32(),
            Self::BF16(tensor) => tensor.data[at].to_f32(),
        }
    }

    /// [`HostTensor::check`].
    pub(crate) fn check(&self, tensor: &'static str, dtype: DType, shape: [u32; 4]) -> Result<()> {
        match self {
            Self::F32(of) => of.check(tensor, dtype, shape),
            Self::F16(of) => of.check(tensor, dtype, shape),
            Self::BF16(of) => of.check(tensor, dtype, shape),
        }
    }

    pub(crate) fn has_nan(&self) -> bool {
        match self {
            Self::F32(tensor) => tensor.data.iter().any(|x| x.is_nan()),
            Self::F16(tensor) => tensor.data.iter().any(|x| x.is_nan()),
            Self::BF16(tensor) => tensor.data.iter().any(|x| x.is_nan()),
        }
    }

    /// The elements as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(tensor) => bytemuck::cast_slice(&tensor.data),
            Self::F16(tensor) => bytemuck::cast_slice(&tensor.data),
            Self::BF16(tensor) => bytemuck::cast_slice(&tensor.data),
        }
    }
}

impl<'a> From<&'a HostTensor<f32>> for AnyHostTensor<'a> {
    fn from(tensor: &'a HostTensor<f32>) -> Self {
        Self::F32(tensor)
    }
}

impl<'a> From<&'a HostTensor<half::f16>> for AnyHostTensor<'a> {
    fn from(tensor: &'a HostTensor<half::f16>) -> Self {
        Self::F16(tensor)
    }
}

impl<'a> From<&'a HostTensor<half::bf16>> for AnyHostTensor<'a> {
    fn from(tensor: &'a HostTensor<half::bf16>) -> Self {
        Self::BF16(tensor)
    }
}

/// A `[batch, seq, head, dim]` tensor in host memory, contiguous in that order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct HostTensor<T = f32> {
    shape: [u32; 4],
    data: Vec<T>,
}

impl<T: Element> HostTensor<T> {
    /// The same numbers in f32.
    pub(crate) fn widened(&self) -> HostTensor {
        HostTensor { shape: self.shape, data: self.data.iter().map(|&x| x.to_f32()).collect() }
    }

    /// Takes `data` as a tensor of this shape.
    ///
    /// # Errors
    /// [`Error::Length`] when `data` does not have exactly as many elements as `shape` says.
    pub fn new(shape: [u32; 4], data: Vec<T>) -> Result<Self> {
        let expected = shape.iter().try_fold(1u64, |n, &axis| n.checked_mul(u64::from(axis)));
        if expected != Some(data.len() as u64) {
            return Err(Error::Length {
                tensor: "HostTensor",
                expected: expected.unwrap_or(u64::MAX),
                actual: data.len() as u64,
            });
        }
        Ok(Self { shape, data })
    }

    /// A tensor of zeros.
    #[must_use]
    pub fn zeros(shape: [u32; 4]) -> Self {
        let len = shape.iter().map(|&axis| axis as usize).product();
        Self { shape, data: vec![T::default(); len] }
    }

    /// `[batch, seq, head, dim]`.
    #[must_use]
    pub const fn shape(&self) -> [u32; 4] {
        self.shape
    }

    /// The elements, dim fastest, then head, then seq, then batch.
    #[must_use]
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// The elements, for writing.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// The elements, without the shape.
    #[must_use]
    pub fn into_data(self) -> Vec<T> {
        self.data
    }

    /// The dim-wide row at `[batch, seq, head]`.
    ///
    /// # Panics
    /// When an index is out of range, as slices do.
    #[must_use]
    pub fn row(&self, batch: usize, seq: usize, head: usize) -> &[T] {
        let [_, seqs, heads, dim] = self.shape.map(|n| n as usize);
        let start = ((batch * seqs + seq) * heads + head) * dim;
        &self.data[start..start + dim]
    }

    /// Checks the element type and the shape that a problem gives to `tensor`.
    pub(crate) fn check(&self, tensor: &'static str, dtype: DType, shape: [u32; 4]) -> Result<()> {
        if T::DTYPE != dtype {
            return Err(Error::DType { tensor, expected: dtype, actual: T::DTYPE });
        }
        if self.shape != shape {
            return Err(Error::Shape { tensor, expected: shape, actual: self.shape });
        }
        Ok(())
    }
}
