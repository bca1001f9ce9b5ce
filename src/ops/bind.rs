//! Checks of the caller's views.

use crate::device::slots::Slot;
use crate::kernels::places::{LsePlace, SeqLensPlace};
use crate::problem::exactly_when;
use crate::{DType, DeviceCaps, Error, Layout, Result, TensorView};

/// A list of `u32` in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct U32View<'a> {
    pub(crate) buffer: &'a wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl<'a> U32View<'a> {
    /// `len` elements from element `offset` on. Checked by `bind`.
    #[must_use]
    pub const fn new(buffer: &'a wgpu::Buffer, offset: u64, len: u64) -> Self {
        Self { buffer, offset, len }
    }
}

/// The part of a buffer to bind, and where the tensor begins in it.
#[derive(Clone, Debug)]
pub(super) struct BoundTensor<'a> {
    pub(super) buffer: &'a wgpu::Buffer,
    pub(super) offset_bytes: u64,
    /// 0 when the tensor has no elements: wgpu has no empty bindings, so a stand-in is bound and never touched.
    pub(super) size_bytes: u64,
    /// Elements from the start of the binding to the tensor's first.
    pub(super) offset: u32,
    /// Strides in elements along batch, seq and head.
    pub(super) strides: [u32; 3],
}

impl<'a> BoundTensor<'a> {
    /// The slot that a kernel's binding gets.
    pub(super) const fn slot(&self) -> Slot<'a> {
        Slot::Range(self.buffer, self.offset_bytes, self.size_bytes)
    }

    /// The same in vec4 elements. Exact: `check_tensor` made sure that all are multiples of 4.
    pub(super) fn in_vec4(&self) -> (u32, [u32; 3]) {
        (self.offset / 4, self.strides.map(|stride| stride / 4))
    }

    /// The numbers of an lse.
    pub(super) const fn lse_place(&self) -> LsePlace {
        let [batch, seq, head] = self.strides;
        LsePlace { offset: self.offset, batch, seq, head }
    }

    /// The number of a list of lengths.
    pub(super) const fn seq_lens_place(&self) -> SeqLensPlace {
        SeqLensPlace { offset: self.offset }
    }
}

/// The use of a binding: its name in errors, and the usage that its buffer needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expect {
    pub(super) tensor: &'static str,
    pub(super) shape: [u32; 4],
    pub(super) dtype: DType,
    pub(super) access: Access,
    /// Elements per load of the kernels: 1, 4 or 8.
    pub(super) at_a_time: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Checks a view against the problem's shape and type, and returns its binding.
pub(super) fn check_tensor<'a>(view: TensorView<'a>, expect: Expect, caps: &DeviceCaps) -> Result<BoundTensor<'a>> {
    let Expect { tensor, shape, dtype, access, at_a_time } = expect;
    let Layout { shape: actual, strides, offset } = view.layout;
    if actual != shape {
        return Err(Error::Shape { tensor, expected: shape, actual });
    }
    if view.dtype != dtype {
        return Err(Error::DType { tensor, expected: dtype, actual: view.dtype });
    }
    let fields = [
        ("strides[batch]", strides[0]),
        ("strides[seq]", strides[1]),
        ("strides[head]", strides[2]),
        ("offset", offset),
    ];
    for (field, value) in fields {
        if value % at_a_time != 0 {
            let rule = match at_a_time {
                8 => "must be a multiple of 8 elements: the problem promises aligned rows",
                _ => "must be a multiple of 4 elements: kernels load four at a time",
            };
            return Err(Error::Layout { tensor, field, value, rule });
        }
    }
    if view.layout.num_elements() == 0 {
        return Ok(BoundTensor { buffer: view.buffer, offset_bytes: 0, size_bytes: 0, offset: 0, strides: [0; 3] });
    }
    if access == Access::Write {
        check_distinct(tensor, &view.layout)?;
    }
    let end = view.layout.end().and_then(|end| end.checked_mul(dtype.size_bytes()));
    let end_bytes = end.ok_or(Error::OutOfBounds { tensor, end: u64::MAX, len: view.buffer.size() })?;
    check_buffer(view.buffer, tensor, end_bytes)?;
    let offset_bytes = offset * dtype.size_bytes();
    let (bound, offset) = binding(view.buffer, tensor, offset_bytes, end_bytes, dtype.size_bytes(), caps)?;
    // The stride of an axis with one element is never used, and may be any number.
    let mut fitting = [0; 3];
    for axis in 0..3 {
        if shape[axis] > 1 {
            // Below the binding's size, which fits 32 bits.
            fitting[axis] = u32::try_from(strides[axis]).map_err(|_| Error::OutOfBounds {
                tensor,
                end: u64::MAX,
                len: view.buffer.size(),
            })?;
        }
    }
    Ok(BoundTensor { offset, strides: fitting, ..bound })
}

/// Checks that no two elements of a written tensor share memory. Sorted by stride, each axis must step past the extent of the smaller ones.
fn check_distinct(tensor: &'static str, layout: &Layout) -> Result<()> {
    let names = ["strides[batch]", "strides[seq]", "strides[head]"];
    let mut axes: Vec<usize> = (0..3).filter(|&axis| layout.shape[axis] > 1).collect();
    axes.sort_by_key(|&axis| layout.strides[axis]);
    let mut reached = u64::from(layout.shape[3]);
    for axis in axes {
        let stride = layout.strides[axis];
        if stride < reached {
            let rule = "makes elements of a written tensor overlap";
            return Err(Error::Layout { tensor, field: names[axis], value: stride, rule });
        }
        reached = stride.saturating_mul(u64::from(layout.shape[axis] - 1)).saturating_add(reached);
    }
    Ok(())
}

/// Checks a list of `u32`.
pub(super) fn check_u32<'a>(
    view: U32View<'a>,
    name: &'static str,
    len: u64,
    caps: &DeviceCaps,
) -> Result<BoundTensor<'a>> {
    if view.len != len {
        return Err(Error::Length { tensor: name, expected: len, actual: view.len });
    }
    let end = view.offset.checked_add(len).and_then(|end| end.checked_mul(4));
    let end_bytes = end.ok_or(Error::OutOfBounds { tensor: name, end: u64::MAX, len: view.buffer.size() })?;
    check_buffer(view.buffer, name, end_bytes)?;
    if len == 0 {
        return Ok(BoundTensor { buffer: view.buffer, offset_bytes: 0, size_bytes: 0, offset: 0, strides: [0; 3] });
    }
    let (bound, offset) = binding(view.buffer, name, view.offset * 4, end_bytes, 4, caps)?;
    Ok(BoundTensor { offset, ..bound })
}

fn check_buffer(buffer: &wgpu::Buffer, tensor: &'static str, end: u64) -> Result<()> {
    if end > buffer.size() {
        return Err(Error::OutOfBounds { tensor, end, len: buffer.size() });
    }
    let missing = wgpu::BufferUsages::STORAGE - buffer.usage();
    if missing.is_empty() { Ok(()) } else { Err(Error::Usage { tensor, missing }) }
}

/// Binds only the part of the buffer that the tensor covers, so that views into buffers larger than a binding work.
fn binding<'a>(
    buffer: &'a wgpu::Buffer,
    tensor: &'static str,
    begin_bytes: u64,
    end_bytes: u64,
    element_bytes: u64,
    caps: &DeviceCaps,
) -> Result<(BoundTensor<'a>, u32)> {
    let alignment = u64::from(caps.min_storage_offset_alignment);
    let offset_bytes = begin_bytes / alignment * alignment;
    // wgpu wants whole words. The last word may reach one f16 past the tensor, never past the buffer: wgpu makes the size of every
    // storage buffer a multiple of 4.
    let size_bytes = (end_bytes - offset_bytes).next_multiple_of(4);
    let available = caps.max_storage_binding_bytes;
    if size_bytes > available {
        let limit = match tensor {
            "q" => "max_storage_buffer_binding_size (q)",
            "k" => "max_storage_buffer_binding_size (k)",
            "v" => "max_storage_buffer_binding_size (v)",
            "out" => "max_storage_buffer_binding_size (out)",
            _ => "max_storage_buffer_binding_size",
        };
        return Err(Error::Limit { limit, needed: size_bytes, available });
    }
    // Below the alignment, which is at most 256 on any device.
    let offset = ((begin_bytes - offset_bytes) / element_bytes) as u32;
    Ok((BoundTensor { buffer, offset_bytes, size_bytes, offset: 0, strides: [0; 3] }, offset))
}

/// Fails when two of the named tensors share a buffer. wgpu tracks whole buffers, and forbids reading and writing one in the same
/// dispatch even where the ranges differ.
pub(super) fn check_apart(
    written: (&'static str, &wgpu::Buffer),
    others: &[(&'static str, &wgpu::Buffer)],
) -> Result<()> {
    match others.iter().find(|(_, buffer)| *buffer == written.1) {
        Some((other, _)) => Err(Error::Overlap { written: written.0, other }),
        None => Ok(()),
    }
}

/// Checks the sequence lengths of a call, which are given exactly when the problem has them.
pub(super) fn check_lens<'a>(
    name: &'static str,
    given: Option<U32View<'a>>,
    wanted: bool,
    batch_size: u32,
    caps: &DeviceCaps,
) -> Result<Option<BoundTensor<'a>>> {
    exactly_when(name, given, wanted)?.map(|view| check_u32(view, name, batch_size.into(), caps)).transpose()
}
