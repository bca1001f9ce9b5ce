//! Lists of blocks, and other whole numbers, in a device's memory.

use super::{BlockListsView, U32View};
use crate::{
    AttentionShape, BlockListSpec, Context, DType, Error, HostBlockLists, HostTensor, Layout, Pending, Result,
    TensorView,
};

impl Context {
    /// Uploads a buffer that kernels read; [`Error::Limit`](crate::Error::Limit) where it exceeds the device's largest buffer.
    pub(crate) fn upload_checked(&self, label: &str, contents: &[u8]) -> Result<wgpu::Buffer> {
        let (needed, available) = (contents.len() as u64, self.caps().max_buffer_bytes);
        if needed > available {
            return Err(Error::Limit { limit: "max_buffer_size", needed, available });
        }
        // Copy source, because benchmarks copy inputs.
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        self.scoped("uploading", || self.upload(label, contents, usage))
    }

    /// The same for whole numbers.
    pub(crate) fn upload_u32(&self, label: &str, list: &[u32]) -> Result<wgpu::Buffer> {
        self.upload_checked(label, bytemuck::cast_slice(list))
    }

    /// Reads a list of `u32`, as f32 of the same bits.
    pub(crate) fn read_u32(&self, buffer: &wgpu::Buffer) -> Pending<'static, Result<Vec<u32>>> {
        let read = self.read::<f32>(words(buffer));
        Pending::new(async { Ok(bits(read.await?)) })
    }
}

fn words(buffer: &wgpu::Buffer) -> TensorView<'_> {
    // A binding's size in words fits 32 bits.
    TensorView::new(buffer, DType::F32, Layout::seq_major(1, 1, 1, (buffer.size() / 4) as u32))
}

fn bits(tensor: HostTensor) -> Vec<u32> {
    tensor.into_data().into_iter().map(f32::to_bits).collect()
}

/// Lists of blocks in buffers of their own. wgpu has no empty buffers, so each has at least one word.
#[derive(Debug)]
pub(crate) struct BlockListBuffers {
    shape: [u32; 4],
    indices: wgpu::Buffer,
    counts: wgpu::Buffer,
}

impl BlockListBuffers {
    fn lengths(shape: [u32; 4]) -> [u64; 2] {
        let counts = shape[..3].iter().map(|&n| u64::from(n)).product::<u64>();
        [counts * u64::from(shape[3]), counts]
    }

    pub(crate) fn new(ctx: &Context, blocks: &BlockListSpec, shape: &AttentionShape) -> Result<Self> {
        let shape = blocks.indices_shape(shape);
        let lengths = Self::lengths(shape);
        let (needed, available) = (lengths[0] * 4, ctx.caps().max_storage_binding_bytes);
        if needed > available {
            let limit = "max_storage_buffer_binding_size (block_indices)";
            return Err(Error::Limit { limit, needed, available });
        }
        let [indices, counts] = ctx.scoped("allocating lists of blocks", || {
            lengths.map(|len| {
                ctx.device().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("wattn.blocks"),
                    size: (len * 4).max(4),
                    usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            })
        })?;
        Ok(Self { shape, indices, counts })
    }

    pub(crate) fn upload(ctx: &Context, blocks: &HostBlockLists) -> Result<Self> {
        let upload = |list: &[u32]| ctx.upload_u32("wattn.blocks", if list.is_empty() { &[0] } else { list });
        let (indices, counts) = (upload(blocks.block_indices())?, upload(blocks.block_counts())?);
        Ok(Self { shape: blocks.shape(), indices, counts })
    }

    pub(crate) fn view(&self) -> BlockListsView<'_> {
        let [indices, counts] = Self::lengths(self.shape);
        BlockListsView {
            block_indices: U32View::new(&self.indices, 0, indices),
            block_counts: U32View::new(&self.counts, 0, counts),
        }
    }

    /// Buffers that the device writes.
    pub(crate) fn read(&self, ctx: &Context) -> Pending<'static, Result<HostBlockLists>> {
        let (indices, counts, shape) = (ctx.read_u32(&self.indices), ctx.read_u32(&self.counts), self.shape);
        Pending::new(async move {
            let (mut indices, mut counts) = (indices.await?, counts.await?);
            let [num_indices, num_counts] = Self::lengths(shape).map(|len| len as usize);
            indices.truncate(num_indices);
            counts.truncate(num_counts);
            HostBlockLists::new(shape, indices, counts)
        })
    }

    /// Fills them with numbers that no list may hold, so that entries a selection does not write are noticed.
    #[cfg(feature = "tune")]
    pub(crate) fn spoil(&self, ctx: &Context) -> Result<()> {
        ctx.scoped("spoiling lists", || {
            for buffer in [&self.indices, &self.counts] {
                ctx.queue().write_buffer(buffer, 0, &vec![0xaa; buffer.size() as usize]);
            }
        })
    }
}
